"""One call, from its request to its invocation, read from left to right:
request ▶ call ▶ artifact ▶ place ▶ jail ▶ outcome.
"""

from __future__ import annotations

import asyncio

from msgspec import structs

from skyisland.errors import BadCall, Draining, DriverError
from skyisland.events import Events
from skyisland.golang import harness
from skyisland.golang.callee import EXAMPLES, parse_handler, understand
from skyisland.golang.conversation import Conversation, Heard
from skyisland.golang.runtime import function_environment
from skyisland.host.fair import LOCAL, FairQueue
from skyisland.jails.outputs import Outputs
from skyisland.jails.pool import Confines, WarmPool
from skyisland.jails.register import Jails
from skyisland.model import Artifact, FunctionRequest, Invocation, Limits, Outcome, Phase, Terms
from skyisland.rooms import AddressRoom, BuildRoom, Elsewhere, Errand, Ran, Visit
from skyisland.status import Policy
from skyisland.story import Story
from skyisland.supply import Supply

PLAIN = Terms()
BEHIND_WAITS = 6
"""Calls behind others wait so many times as long for their turn as these do. A judgement: a build or two."""


def confined(limits: Limits) -> Confines:
    """A call's jail with these limits: what the function may print, and the harness's record behind it."""
    with_record = structs.replace(limits, stdout_bytes=limits.stdout_bytes + harness.RECORD_BYTES)
    return Confines(with_record, function_environment(limits))


class Calling:
    """Runs calls, as many at a time as there are places."""

    def __init__(
        self,
        policy: Policy,
        events: Events,
        supply: Supply,
        builds: BuildRoom,
        network: AddressRoom,
        jails: Jails,
        pool: WarmPool,
        outputs: Outputs,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        """`elsewhere`: who may run a call for which there is no room here."""
        self.policy = policy
        self._events = events
        self._supply = supply
        self._builds = builds
        self._network = network
        self._jails = jails
        self._pool = pool
        self._outputs = outputs
        self._elsewhere = elsewhere
        self.closed = False
        """The island stops: no new call is taken."""
        self.running: dict[asyncio.Task[object], Story] = {}
        self.places = FairQueue(
            "a place to run",
            policy.max_running,
            places_per_client=policy.running_per_client,
            max_waiting=policy.max_queued,
            timeout_s=policy.queue_timeout_s,
        )
        self._behind = FairQueue(
            "a place behind all other calls",
            policy.behind_running,
            places_per_client=policy.behind_running,
            max_waiting=policy.max_queued,
            timeout_s=BEHIND_WAITS * policy.queue_timeout_s,
        )
        """Also for the time of their builds: a sweep over versions is builds, most of all."""
        self._left_to_others = min(policy.max_running - 1, max(1, policy.max_running // 4))
        """Places that no call behind others takes. A judgement."""

    async def invoke(
        self,
        request: FunctionRequest,
        *,
        client: str = LOCAL,
        id: str = "",  # noqa: A002 - as the answer's field is named
        caller_id: str = "",
        traceparent: str = "",
        text_only: bool = False,
        heard: Heard | None = None,
        terms: Terms | None = None,
        repeatable: bool = False,
        visit: Visit | None = None,
        behind: bool = False,
    ) -> Invocation:
        """Run one call in a jail of its own. `client`: whose share of the island it counts to.

        `id`: the invocation's, one that nothing else has; `caller_id`: what the caller calls it;
        `traceparent`: the trace that it is a part of. `text_only`: nobody wants the results as JSON.
        `heard`: called with the answers of many inputs as they come; they are not in the outcome then.
        `terms`: of a call by name. `repeatable`: it may be run again when nobody knows whether it ran.
        `visit`: who waits for a call that another island sent; it runs at once or not at all.
        `behind`: it may wait until nobody else does.

        Raises:
            IslandError: the request was refused or could not be carried out. What happens inside the jail is
                the invocation's `Outcome`, not an error.
        """
        if self.closed:
            raise Draining("the island is stopping and takes no new calls", retry_after_s=5)
        if terms is None:
            terms = PLAIN
        story = Story(
            request,
            self._events,
            client,
            id=id,
            caller_id=caller_id,
            traceparent=traceparent,
            name=terms.name,
        )
        story.secrets = terms.secrets
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - we are in a coroutine
        self.running[task] = story
        self._builds.disturb()
        try:
            if behind:
                async with self._behind.claim(client):
                    outcome = await self._carry_out(
                        request, story, text_only, heard, terms, repeatable, visit, behind=True
                    )
                return story.finish(outcome)
            return story.finish(
                await self._carry_out(request, story, text_only, heard, terms, repeatable, visit)
            )
        except Exception as error:
            story.fail(error)
            raise
        finally:
            self.running.pop(task, None)
            story.close()

    async def _carry_out(
        self,
        request: FunctionRequest,
        story: Story,
        text_only: bool,
        heard: Heard | None,
        terms: Terms,
        repeatable: bool,
        visit: Visit | None,
        behind: bool = False,
    ) -> Outcome:
        if terms.examples:
            call = EXAMPLES
        elif terms.exchange is not None:
            call = parse_handler(request.call)
        else:
            call = await understand(request)
        story.function = call.function
        story.limits = terms.limits or self.policy.limits
        story.timeout_s = terms.timeout_s or self.policy.exec_timeout_s
        talk = Conversation(
            request,
            call,
            text_only=text_only,
            timeout_s=story.timeout_s,
            most_bytes=story.limits.stdout_bytes,
            heard=heard,
            environment=(*story.environment, *terms.environment),
            exchange=terms.exchange,
        )
        if request.ip4:
            self._network.require()
        try:
            artifact = await self._supply.for_call(request, call, story, terms)
        except OSError as error:  # the disk is full, no descriptor is left …
            raise DriverError(f"the host failed us: {error.strerror}; see its log") from error
        story.function, story.artifact = artifact.function, artifact
        with self._builds.using(artifact):
            alone = self._elsewhere is None and visit is None
            if not (alone or behind or self.has_room(story.client, ip4=request.ip4)):
                if visit is not None:
                    raise self.places.refusal_full()
                ran = await self._run_elsewhere(request, artifact, story, text_only, terms, repeatable)
                if ran is not None:
                    if heard is not None and ran.outcome.answers:
                        heard([*ran.outcome.answers])
                        return structs.replace(ran.outcome, answers=None)
                    return ran.outcome
            try:
                with story.phase(Phase.queue):
                    if request.ip4:
                        await self._network.await_turn(story.id, story.client)
                    if behind:
                        await self._stand_back()
                    if not self.places.take(story.client):
                        story.queued()
                        await self.places.wait(story.client)
                try:
                    return await self._run(request, talk, artifact, story, terms, visit)
                finally:
                    self.places.leave(story.client)
            finally:
                if request.ip4:
                    self._network.end_turn(story.id)

    def has_room(self, client: str, *, ip4: bool = False) -> bool:
        """Whether one more call of a client would have a place at once, and an address."""
        return not self.closed and self.places.has_room(client) and (not ip4 or self._network.free > 0)

    async def _run_elsewhere(
        self,
        request: FunctionRequest,
        artifact: Artifact,
        story: Story,
        text_only: bool,
        terms: Terms,
        repeatable: bool,
    ) -> Ran | None:
        """Have another island run it; None if none has room, or it is for this one alone."""
        here_alone = request.cold or request.cache_bust or terms.examples or terms.exchange is not None
        if self._elsewhere is None or story.resolved is None or story.limits is None or here_alone:
            return None
        errand = Errand(
            id=story.id,
            request=request,
            resolved=story.resolved,
            client=story.client,
            caller_id=story.caller_id,
            traceparent=story.traceparent,
            text_only=text_only,
            limits=story.limits,
            timeout_s=story.timeout_s,
            name=terms.name,
            revision=terms.revision,
            key=artifact.key,
            repeatable=repeatable,
        )
        ran = await self._elsewhere.run(errand)
        if ran is not None:
            story.node, story.jail, story.warm = ran.node, ran.jail, ran.warm
            story.spend(Phase.jail, ran.timings.jail_s)
            story.spend(Phase.exec, ran.timings.exec_s)
        return ran

    async def _stand_back(self) -> None:
        """Wait until nobody waits for a place, and more are free than are left to others.

        Raises:
            TooBusy: it took too long.
        """
        try:
            async with asyncio.timeout(self._behind.timeout_s):
                await self.places.stand_back(self._left_to_others)
        except TimeoutError:
            raise self._behind.refusal_late() from None

    async def _run(
        self,
        request: FunctionRequest,
        talk: Conversation,
        artifact: Artifact,
        story: Story,
        terms: Terms,
        visit: Visit | None,
    ) -> Outcome:
        """Say to a jail's process what is to be said, and wait for its end."""
        with self._pool.call():
            with story.phase(Phase.jail):
                inmate = await self._pool.obtain(
                    request,
                    artifact,
                    talk.shown,
                    invocation=story.id,
                    cached=story.cached,
                    client=story.client,
                    words=talk.words,
                    own=confined(terms.limits) if terms.limits is not None else None,
                )
            try:
                story.jail, story.warm = inmate.spec.name, inmate.warm
                inmate.mark, inmate.secrets = talk.mark, story.secrets
                if visit is not None:
                    await visit.begins()
                with story.phase(Phase.exec):
                    outcome = await inmate.converse(talk.input, talk.timeout_s, talk.heard)
            finally:
                self._jails.discard(inmate)
        try:
            outcome = talk.told(outcome)
            self._outputs.keep(inmate.spec.name, story.id, outcome, story.secrets)
            return outcome
        except BadCall as refusal:
            raise await self._with_declaration(refusal, artifact) from None

    async def _with_declaration(self, refusal: BadCall, artifact: Artifact) -> BadCall:
        """A refusal of arguments, with what the function takes, if that is known."""
        offered = await self._builds.known_catalogue(artifact)
        entry = offered.find(artifact.function) if offered else None
        if entry is None or entry.kind != "function":
            return refusal
        return BadCall(f"{refusal.message}; it is declared as {entry.declaration}", **refusal.details)
