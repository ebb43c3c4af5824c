"""The identity provider `ecap`: endpoint tokens are validated by a service of the cluster.

What lives here: requests to it, a cache of its answers, revocations, and reports of a token's first use. What does
not: how many requests are under way at once (`kaa_gateway.identity.shared_requests`), and ending what uses a token
(`kaa_gateway.kp`).

Source: 16/ECAP "Endpoint and Client Authentication Protocol", endpoint identification by token.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import structlog

from kaa_gateway.bus.ecap import TOKEN_REVOKED, TOKEN_TRANSITION, TOKEN_VALIDATION, token_revoked_subject
from kaa_gateway.bus.messages import is_expired
from kaa_gateway.bus.requests import Requests
from kaa_gateway.errors import IdentityError, MalformedAvro
from kaa_gateway.identity.cache import Cache
from kaa_gateway.identity.provider import TOKEN_REJECTED, Identity, is_definite, shortened
from kaa_gateway.identity.shared_requests import IDENTITY_UNAVAILABLE, SharedRequests

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kaa_gateway.bus.control import Control

ACTIVE = "Active"
"""The status that a token has once it was used."""
ACTIVATIONS_AT_ONCE = 16
"""Tokens that the provider is told of at one time."""
REVALIDATIONS_MAX = 3
"""How often a token is validated again because it was revoked while its validation was under way."""

Question = tuple[str, str]
"""Application and token."""

log = structlog.get_logger("gateway.identity")


class EcapProvider:
    """Asks a service instance about tokens.

    `application_of` maps application versions to their applications. `revoked` is called with an endpoint ID, the
    versions of its application, and the IDs of its revoked tokens; it ends their use.
    """

    def __init__(
        self,
        control: Control,
        replica_id: str,
        application_of: Mapping[str, str],
        revoked: Callable[[str, frozenset[bytes], frozenset[str]], object],
        *,
        service_instance: str,
        timeout: float,
        cache_size: int,
        cache_ttl: float,
        negative_cache_ttl: float,
        activate_tokens: bool,
    ) -> None:
        instance = service_instance
        self._instance = instance
        self._control = control
        self._timeout = timeout
        self._cache_ttl = cache_ttl
        self._negative_cache_ttl = negative_cache_ttl
        self._activate_tokens = activate_tokens
        self._revoked = revoked
        self.configure(application_of)
        self.validations = Requests(control, replica_id, instance, "ecap", TOKEN_VALIDATION)
        self.good: Cache[Question, Identity] = Cache(cache_size, self._forgotten)
        self.bad: Cache[Question, str] = Cache(cache_size)
        self._question_of: dict[str, Question] = {}
        """The questions of good tokens, by token ID."""
        self._revoked_at: OrderedDict[str, float] = OrderedDict()
        """When tokens were revoked, by token ID and in this order; as long as a validation may take."""
        self._unregistered: Cache[str, float] = Cache(cache_size)
        """When endpoints were unregistered, as long as an answer that names one may be cached."""
        self._transitions = Requests(control, replica_id, instance, "ecap", TOKEN_TRANSITION)
        self._activated: Cache[Question, bool] = Cache(cache_size)
        self._activations: SharedRequests[Question, None] = SharedRequests(
            self._activate, timeout, concurrent=ACTIVATIONS_AT_ONCE
        )
        control.subscribe(token_revoked_subject(instance), self._on_revoked)
        control.when_reconnected(self._on_reconnected)

    def configure(self, application_of: Mapping[str, str]) -> None:
        """Replace the application versions."""
        self._application_of = application_of
        self._versions_of: dict[str, frozenset[bytes]] = {
            application: frozenset(
                version.encode() for version, other in application_of.items() if other == application
            )
            for application in application_of.values()
        }

    async def start(self) -> None:
        """Do nothing: the control connection is started by its owner."""

    async def stop(self) -> None:
        """Stop reporting first uses of tokens."""
        await self._activations.stop()

    def scope(self, app_version_name: str) -> str:
        """Return the application of a version. Raises IdentityError if the version is not configured any more."""
        application = self._application_of.get(app_version_name)
        if application is None:
            raise IdentityError(401, TOKEN_REJECTED)
        return application

    def known(self, scope: str, token: str) -> Identity | None:
        """Return the cached answer about a token. Raises IdentityError if it was refused."""
        question = (scope, token)
        identity = self.good.get(question)
        if identity is not None and self._is_unregistered(identity, identity.valid_until - self._cache_ttl):
            self.good.forget(question)
            identity = None
        if identity is None and self.bad.get(question) is not None:
            raise IdentityError(401, TOKEN_REJECTED)
        return identity

    async def resolve(self, scope: str, token: str) -> Identity:
        """Ask the provider about a token."""
        question = (scope, token)
        for _ in range(REVALIDATIONS_MAX):
            asked_at = time.monotonic()
            identity = self._read_answer(
                question, await self.validations.ask(self._timeout, appName=scope, token=token)
            )
            if self._is_unregistered(identity, asked_at):
                continue
            if identity.token_id is None or self._revoked_at.get(identity.token_id, -math.inf) < asked_at:
                break
        else:
            raise IdentityError(503, IDENTITY_UNAVAILABLE)
        self.good.put(question, identity, identity.valid_until)
        if identity.token_id is not None:
            self._question_of[identity.token_id] = question
        self._note_use(question)
        return identity

    def _read_answer(self, question: Question, answer: dict[str, Any]) -> Identity:
        status: int = answer["statusCode"]
        endpoint_id: str | None = answer["endpointId"]
        if 200 <= status < 300:
            if not endpoint_id:
                log.error("the provider accepts a token and names no endpoint", token=shortened(question[1]))
                raise IdentityError(503, IDENTITY_UNAVAILABLE)
            valid_until = time.monotonic() + self._cache_ttl
            return Identity(endpoint_id, answer["tokenId"], valid_until)
        if is_definite(status):
            self.bad.put(question, TOKEN_REJECTED, time.monotonic() + self._negative_cache_ttl)
            raise IdentityError(401, TOKEN_REJECTED)
        raise IdentityError(503, IDENTITY_UNAVAILABLE)

    def forget_endpoint(self, endpoint_id: str) -> None:
        """Ask again about tokens that were an endpoint's: it is not registered any more."""
        now = time.monotonic()
        self._unregistered.put(endpoint_id, now, now + self._cache_ttl + self._timeout)

    def _is_unregistered(self, identity: Identity, asked_at: float) -> bool:
        """Return whether an endpoint was unregistered after the provider was asked about its token."""
        if not len(self._unregistered):
            return False
        at = self._unregistered.get(identity.endpoint_id)
        return at is not None and at >= asked_at

    def _forgotten(self, question: Question, identity: Identity) -> None:
        if identity.token_id is not None and self._question_of.get(identity.token_id) == question:
            del self._question_of[identity.token_id]

    # ------------------------------------------------------------ first use

    def _note_use(self, question: Question) -> None:
        if self._activate_tokens and self._activated.get(question) is None:
            self._activations.ask(question).add_done_callback(
                lambda done: None if done.cancelled() else done.exception()
            )

    async def _activate(self, question: Question) -> None:
        application, token = question
        answer = await self._transitions.ask(
            self._timeout, appName=application, token=token, targetStatus=ACTIVE
        )
        status: int = answer["statusCode"]
        if not 200 <= status < 300:
            # The token can be used all the same: the provider has accepted it.
            log.info("token could not be activated", token=shortened(token), status=status)
        if is_definite(status):
            self._activated.put(question, True, math.inf)

    # ------------------------------------------------------------ events

    def _on_revoked(self, subject: str, datum: bytes) -> None:
        try:
            event = TOKEN_REVOKED.decode(datum)
        except MalformedAvro:
            log.warning("event dropped: malformed", subject=subject)
            return
        self._control.clock_skew.check(self._instance, event["timestamp"], event["timeout"])
        if is_expired(event):
            log.warning("event dropped: expired", subject=subject)
            return
        application: str = event["appName"]
        token_ids = frozenset[str](event["tokenIds"])
        now = time.monotonic()
        self._forget_revocations(now - self._timeout)
        for token_id in token_ids:
            self._revoked_at.pop(token_id, None)
            self._revoked_at[token_id] = now
        for token_id in token_ids:
            question = self._question_of.get(token_id)
            if question is not None:
                self.good.forget(question)
                self._activated.forget(question)
        self._revoked(event["endpointId"], self._versions_of.get(application, frozenset()), token_ids)

    def _forget_revocations(self, before: float) -> None:
        while self._revoked_at:
            oldest = next(iter(self._revoked_at))
            if self._revoked_at[oldest] >= before:
                return
            del self._revoked_at[oldest]

    def _on_reconnected(self) -> None:
        """Forget good tokens: revocations may have been missed."""
        self.good.clear()
