// A device of MQTT 5 on MQTT.js. It prints one line of JSON with what it has seen, and exits with 0.
//
// usage: node device.js URL TOKEN
// NODE_PATH names the directory with MQTT.js.

const mqtt = require("mqtt");

const [url, token] = process.argv.slice(2);
const topic = `kp1/app_v1/echo/${token}/hello`;
const seen = { answers: [], errors: [] };

const client = mqtt.connect(url, {
  protocolVersion: 5,
  clean: true,
  clientId: "",
  reconnectPeriod: 0,
  properties: { sessionExpiryInterval: 0, receiveMaximum: 10, topicAliasMaximum: 5, requestResponseInformation: true },
});

function fail(why) {
  console.error(why);
  process.exit(1);
}

function publish(name, payload, options) {
  return new Promise((resolve) => {
    client.publish(name, payload, options, (error, packet) => resolve({ error, packet }));
  });
}

setTimeout(() => fail(`not done in time: ${JSON.stringify(seen)}`), 20000);
client.on("error", (error) => seen.errors.push(String(error)));

client.on("connect", async (connack) => {
  seen.connack = { code: connack.reasonCode, present: connack.sessionPresent, ...connack.properties };
  await client.subscribeAsync("answers/#", { qos: 1, properties: { subscriptionIdentifier: 7 } });
  const plain = { responseTopic: "answers/1", correlationData: Buffer.from("id") };
  await publish(topic, "alias", { qos: 1, properties: { ...plain, topicAlias: 3 } });
  await publish("", "aliased", { qos: 2, properties: { ...plain, topicAlias: 3 } });
  const refused = await publish(`kp1/app_v1/none/${token}/json`, "x", { qos: 1 });
  seen.refused = refused.error ? refused.error.code : refused.packet.reasonCode;
});

client.on("message", (name, payload, packet) => {
  seen.answers.push({
    topic: packet.topic,
    name,
    payload: payload.toString(),
    qos: packet.qos,
    data: packet.properties.correlationData.toString(),
    identifier: packet.properties.subscriptionIdentifier,
    user: { ...packet.properties.userProperties },
  });
  maybeEnd();
});

function maybeEnd() {
  if (seen.answers.length < 2 || seen.refused === undefined) {
    setTimeout(maybeEnd, 10);
    return;
  }
  client.end(false, { reasonCode: 0 }, () => {
    console.log(JSON.stringify(seen));
    process.exit(0);
  });
}
