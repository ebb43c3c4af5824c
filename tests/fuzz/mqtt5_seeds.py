"""MQTT 5 packets to begin fuzzing with: both directions, with every property that a packet may have.

They are made by the codec of the tests.
"""

from tests.support.mqtt5 import codec as mqtt5
from tests.support.mqtt5 import packets
from tests.support.mqtt5.properties import Property

P = Property
EVERY_PROPERTY_OF_CONNECT = (
    (P.SESSION_EXPIRY_INTERVAL, 60), (P.RECEIVE_MAXIMUM, 2), (P.MAXIMUM_PACKET_SIZE, 200), (P.TOPIC_ALIAS_MAXIMUM, 3),
    (P.REQUEST_RESPONSE_INFORMATION, 1), (P.REQUEST_PROBLEM_INFORMATION, 0), (P.USER_PROPERTY, ("a", "b")),
)  # fmt: skip
EVERY_PROPERTY_OF_A_MESSAGE = (
    (P.PAYLOAD_FORMAT_INDICATOR, 1), (P.MESSAGE_EXPIRY_INTERVAL, 9), (P.CONTENT_TYPE, "t"), (P.RESPONSE_TOPIC, "r"),
    (P.CORRELATION_DATA, b"c"), (P.USER_PROPERTY, ("traceparent", "x")),
)  # fmt: skip
MQTT_5 = [
    mqtt5.encode(packet)
    for packet in (
        packets.Connect(
            "id",
            will=packets.Will(
                "w", b"m", 1, properties=(*EVERY_PROPERTY_OF_A_MESSAGE, (P.WILL_DELAY_INTERVAL, 3))
            ),
            user_name="user",
            password=b"password",
            properties=EVERY_PROPERTY_OF_CONNECT,
        ),
        packets.Connack(
            True,
            0,
            properties=(
                (P.ASSIGNED_CLIENT_IDENTIFIER, "x"),
                (P.SERVER_KEEP_ALIVE, 9),
                (P.RETAIN_AVAILABLE, 0),
            ),
        ),
        packets.Publish("kp1/v/dcx/ü/json", b"x" * 130, 1, 10, properties=EVERY_PROPERTY_OF_A_MESSAGE),
        packets.Publish("", b"", properties=((P.TOPIC_ALIAS, 1),)),
        packets.Puback(7, 0x80, properties=((P.REASON_STRING, "why"),)),
        packets.Pubrel(7, 0x92),
        packets.Subscribe(
            1, (("a/+/#", 0x2D), ("$share/g/b", 2)), properties=((P.SUBSCRIPTION_IDENTIFIER, 300),)
        ),
        packets.Suback(1, (0, 0x9E)),
        packets.Unsubscribe(1, ("a/+", "#")),
        packets.Unsuback(1, (0, 0x11)),
        packets.Disconnect(0x04, properties=((P.SESSION_EXPIRY_INTERVAL, 1), (P.REASON_STRING, "why"))),
    )
]
