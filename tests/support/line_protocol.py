"""A protocol for tests: lines of text, each a command to the plug-in."""

from typing import Any, ClassVar

from kaa_gateway.plugins import Answer, DeviceProtocol, Push, Refusal, Violation


class Lines(DeviceProtocol):
    """Each line is a word and a rest. What the plug-in is told, it sends back as a line.

    `made` are all objects of the class, for tests in the same process.
    """

    options_with_defaults: ClassVar[dict[str, str | float | bool]] = {
        "greeting": "",
        "timer": 0.0,
        "shout": False,
    }
    reasons = ("bad_word", "said_goodbye")
    examples = (b"login device-1\n", b"publish dcx/json {}\n", b"confirm dcx/json {}\n", b"ask dcx/json {}\n")

    made: ClassVar[list["Lines"]] = []

    @classmethod
    def message_size(cls, data: bytes, at: int) -> int:
        return data.find(b"\n", at) + 1 - at if data.find(b"\n", at) >= 0 else 0

    def opened(self) -> None:
        self.made.append(self)
        self.events: list[str] = []
        if self.options["greeting"]:
            self.tell(self.options["greeting"])
        if self.options["timer"]:
            self.set_timer(self.options["timer"])

    def tell(self, line: str) -> None:
        self.events.append(line)
        self.send((line.upper() if self.options["shout"] else line).encode() + b"\n")

    def receive(self, message: bytes) -> None:
        word, _, rest = message.decode("utf-8", "replace").strip().partition(" ")
        path, _, payload = rest.partition(" ")
        if word == "login":
            self.identify(rest)
        elif word == "publish":
            self.publish(path, payload.encode())
        elif word == "confirm":
            self.publish(path, payload.encode(), payload)
        elif word == "ask":
            self.request(path, payload.encode(), payload)
        elif word == "as":
            token, _, payload = payload.partition(" ")
            self.publish(path, payload.encode(), token=token)
        elif word == "send":
            self.send(rest.encode())
        elif word == "timer":
            self.set_timer(float(rest))
        elif word == "bye":
            self.tell("bye")
            self.close("said_goodbye")
        elif word == "undeclared":
            self.close("no_such_reason")
        elif word == "fault":
            raise RuntimeError("a fault of the plug-in")
        else:
            raise Violation("bad_word", word)

    def identified(self, token: str) -> None:
        self.tell(f"identified {token}")

    def rejected(self, token: str, refusal: Refusal) -> None:
        self.tell(f"rejected {token} {refusal.status}")

    def confirmed(self, reference: Any) -> None:
        self.tell(f"confirmed {reference}")

    def refused(self, reference: Any, refusal: Refusal) -> None:
        self.tell(f"refused {reference} {refusal.status}")

    def answered(self, reference: Any, answer: Answer) -> None:
        self.tell(f"answered {reference} {answer.status} {answer.payload.decode()}")

    def pushed(self, push: Push) -> bool:
        if push.payload == b"fault":
            raise RuntimeError("a fault while pushed to")
        if push.payload == b"no":
            return False
        self.tell(f"pushed {push.extension} {push.path} {push.token} {push.payload.decode()}")
        return True

    def timer(self) -> None:
        self.tell("timer")

    def stopping(self) -> None:
        self.tell("stopping")

    def closed(self) -> None:
        self.events.append("closed")


class Datagrams(Lines):
    """The same over UDP, with a line in each datagram."""
