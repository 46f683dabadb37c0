"""An MQTT broker: its address, and one connection to it, driven by the thread that uses it."""

from __future__ import annotations

import math
import os
import re
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import ConfigError, InstallError, short
from ..live.page.security import is_loopback
from ..plain_files import printable

PASSWORD_VARIABLE = "JMT_EDGE_MQTT_PASSWORD"
PORTS = {"mqtt": 1883, "mqtts": 8883}
PREFIX = "jmt-edge"  # topics begin with it where the address has no path
KEEPALIVE = 10  # s; the broker sends the last will after 1.5 times as many
CONNECT = 5.0  # s for the broker to answer
MAX_PASSWORD = 65535  # bytes, MQTT's limit
_BED = re.compile(r"[\w .()-]{1,48}")


class BrokerLostError(Exception):
    """The broker does not answer, refuses, or has gone; the text says why."""


@dataclass(frozen=True)
class Broker:
    """Where messages go. prefix: topics are `prefix/BED/...`."""

    host: str
    port: int
    prefix: str = PREFIX
    tls: bool = False
    user: str = ""
    password: str = field(default="", repr=False)
    ca: Path | None = None

    @property
    def name(self) -> str:
        """Without user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}/{self.prefix}"

    @property
    def warning(self) -> str:
        """What the user should know; empty where there is nothing."""
        if self.tls or is_loopback(self.host):
            return ""
        what = "results and the password are" if self.password else "results are"
        return f"mqtt: {what} sent to {self.host} without encryption; write mqtts:// for TLS"

    def context(self) -> ssl.SSLContext:
        """Raises ConfigError for certificates that cannot be read."""
        try:
            return ssl.create_default_context(cafile=str(self.ca) if self.ca else None)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"the certificates {printable(str(self.ca))} cannot be used ({error.strerror or error}); give a PEM "
                "file with --mqtt-ca"
            ) from None


def parse_broker(
    url: str, password_file: Path | None = None, ca: Path | None = None, environment: Mapping[str, str] = os.environ
) -> Broker:
    """`mqtt[s]://[USER@]HOST[:PORT][/PREFIX]` and where its password is: a file, else the environment.

    Raises ConfigError for an address, a password or certificates that cannot be used.
    """
    example = "write mqtt://HOST/PREFIX, such as mqtts://unit@broker.ward/ward-3"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in PORTS or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError(f"'{_without_password(url)}' is not an MQTT address; {example}")
    if parts.password is not None:
        raise ConfigError(
            f"a password in an address is seen by every user of this machine; put it into a file "
            f"(--mqtt-password-file) or into {PASSWORD_VARIABLE}"
        )
    prefix = unquote(parts.path).strip("/") or PREFIX
    check_topic(prefix, example)
    tls = parts.scheme == "mqtts"
    if ca is not None and not tls:
        raise ConfigError("--mqtt-ca is for encrypted connections; write mqtts:// in --mqtt, or leave it out")
    password = _password(password_file, environment)
    user = unquote(parts.username or "")
    if password and not user:
        raise ConfigError("an MQTT password needs a user name; write mqtt://USER@HOST")
    broker = Broker(parts.hostname, port or PORTS[parts.scheme], prefix, tls, user, password, ca)
    if tls:
        broker.context()
    return broker


def check_topic(prefix: str, remedy: str) -> None:
    """Raises ConfigError for what no topic to be published can begin with."""
    if not prefix.isprintable() or any(c in prefix for c in "+#") or prefix.startswith("$") or len(prefix) > 200:
        raise ConfigError(f"'{printable(prefix)}' cannot begin MQTT topics (no +, # or leading $); {remedy}")


def _without_password(url: str) -> str:
    return printable(re.sub(r"(//[^/@:]*):[^/@]*@", r"\1:...@", url))


def _password(file: Path | None, environment: Mapping[str, str]) -> str:
    if file is None:
        return environment.get(PASSWORD_VARIABLE, "")
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_PASSWORD + 1).decode().rstrip("\r\n")
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"the MQTT password {printable(file)} cannot be read ({getattr(error, 'strerror', 'not text')}); check "
            "--mqtt-password-file"
        ) from None
    if not text or len(text) > MAX_PASSWORD:
        raise ConfigError(f"the MQTT password {printable(file)} is empty or too long; write one line into it")
    return text


def check_bed(name: str) -> str:
    """The name of a bed, as a level of a topic. Raises ConfigError."""
    if not _BED.fullmatch(name) or name != name.strip():
        raise ConfigError(
            f"'{printable(name)[:60]}' cannot name a bed; use up to 48 letters, digits, spaces and . ( ) _ -"
        )
    return name


def load_paho() -> Any:
    """The module `paho.mqtt.client`. Raises InstallError."""
    try:
        from paho.mqtt import client
    except ImportError:
        raise InstallError("MQTT needs paho-mqtt, which is not installed; run `pip install 'jmt-edge[mqtt]'`") from None
    if not hasattr(client, "CallbackAPIVersion"):
        raise InstallError("MQTT needs paho-mqtt 2 or newer; run `pip install 'jmt-edge[mqtt]'`")
    return client


class Connection:
    """One connection to a broker, open from its making to `close`. Every call but `wake` is the same thread's.

    will: (topic, payload) that the broker publishes, retained, when the connection is lost. Raises BrokerLostError
    where the broker does not answer or refuses.
    """

    def __init__(
        self,
        broker: Broker,
        client_id: str,
        *,
        will: tuple[str, bytes] | None = None,
        on_message: Callable[[str, bytes], None] = lambda topic, payload: None,
        on_accepted: Callable[[int], None] = lambda mid: None,
    ) -> None:
        mqtt = load_paho()
        self._lost = ""
        self._connected = False
        self._wake_read, self._wake_write = socket.socketpair()
        for end in (self._wake_read, self._wake_write):
            end.setblocking(False)
        self._client: Any = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id, clean_session=True, reconnect_on_failure=False
        )
        client = self._client
        client.max_inflight_messages_set(65535)  # who sends here bounds it
        if broker.user:
            client.username_pw_set(broker.user, broker.password)
        if broker.tls:
            client.tls_set_context(broker.context())
        if will is not None:
            client.will_set(*will, qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = lambda client, data, mid, code, properties: on_accepted(mid)
        client.on_message = lambda client, data, message: on_message(message.topic, message.payload)
        client.connect_timeout = CONNECT
        try:
            client.connect(broker.host, broker.port, KEEPALIVE)
            until = time.monotonic() + CONNECT
            while not self._connected:
                left = until - time.monotonic()
                if left <= 0:
                    raise BrokerLostError("it does not answer")
                self.turn(left)
        except BrokerLostError:
            self.close()
            raise
        except (OSError, ValueError) as error:  # ValueError: a host name that is not one
            self.close()
            raise BrokerLostError(getattr(error, "strerror", None) or short(error)) from None

    def _on_connect(self, client: Any, data: Any, flags: Any, code: Any, properties: Any) -> None:
        if code.is_failure:
            self._lost = str(code).lower()
        else:
            self._connected = True

    def _on_disconnect(self, client: Any, data: Any, flags: Any, code: Any, properties: Any) -> None:
        self._lost = self._lost or f"the connection was lost ({str(code).lower()})"

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Send with QoS 1; the number with which `on_accepted` is called once the broker has it."""
        return int(self._client.publish(topic, payload, qos=1, retain=retain).mid)

    def subscribe(self, topics: Iterable[str]) -> None:
        self._client.subscribe([(topic, 1) for topic in topics])

    def turn(self, timeout: float) -> None:
        """Send, receive and call back, for at most `timeout` seconds or until `wake`. Raises BrokerLostError."""
        client = self._client
        wire = client.socket()
        if wire is not None:
            waiting = getattr(wire, "pending", lambda: 0)()  # TLS has read more than was taken
            ready = select.poll()
            ready.register(wire, select.POLLIN | (select.POLLOUT if client.want_write() else 0))
            ready.register(self._wake_read, select.POLLIN)
            events = dict(ready.poll(0 if waiting else math.ceil(max(0.0, timeout) * 1000)))
            if self._wake_read.fileno() in events:
                with suppress(BlockingIOError):
                    self._wake_read.recv(4096)
            event = events.get(wire.fileno(), 0)
            if waiting or event & ~select.POLLOUT:
                client.loop_read(100)
            if event & select.POLLOUT and client.socket() is not None:
                client.loop_write()
            client.loop_misc()
        if self._lost or client.socket() is None:
            raise BrokerLostError(self._lost or "the connection was lost")

    def wake(self) -> None:
        """End the wait of `turn`; from any thread."""
        with suppress(OSError):  # full: it wakes anyway; closed: nobody waits
            self._wake_write.send(b".")

    def close(self) -> None:
        """Say goodbye, so that the broker does not send the last will."""
        with suppress(OSError, ValueError):
            self._client.disconnect()
            if self._client.socket() is not None:
                self._client.loop_write()
                if self._client.socket() is not None:
                    self._client.socket().close()
        self._wake_read.close()
        self._wake_write.close()
