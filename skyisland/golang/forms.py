"""In which form a call is compiled, as far as its text does not say it: learned from what Go says of it.

A form that Go refuses leads to the next: an expression that turns out to have no value is compiled as a
statement, a part that gives an error beside its value as a link. What was learned holds for all calls of the
same shape at the same commit.
"""

from __future__ import annotations

import asyncio
import hashlib
import re

from skyisland.errors import BuildFailed, Complaint
from skyisland.golang.harness import Form
from skyisland.golang.links import more_links, shape_of
from skyisland.model import Source

MAX_FORMS = 10
"""Forms that are tried for a call. A judgement: nobody chains so many links."""
FORMS = 1000
"""Forms that are remembered, of some hundred bytes each; what is forgotten costs a few tries more."""
_OURS = re.compile(r"(?:in argument|in call) to must[0-9]")
"""What Go says of the functions of links: no word for a caller."""


class Forms:
    """The forms of calls that were compiled."""

    def __init__(self) -> None:
        self._forms: dict[tuple[str, str, str, str], Form] = {}

    async def of(self, source: Source, text: str) -> Form:
        """The form in which calls of this shape compile; the plain one if nothing else is known."""
        return self._forms.get(await _key(source, text), Form())

    async def learn(self, source: Source, text: str, form: Form) -> None:
        """Calls of this shape compile in this form."""
        key = await _key(source, text)
        self._forms.pop(key, None)
        if form != Form():
            self._forms[key] = form
            if len(self._forms) > FORMS:
                del self._forms[next(iter(self._forms))]


async def _key(source: Source, text: str) -> tuple[str, str, str, str]:
    return (source.url, source.package, source.commit, await asyncio.to_thread(_hash_of_shape, text))


def _hash_of_shape(text: str) -> str:
    """A call's shape may be as long as the call is; a thousand of them are kept."""
    return hashlib.sha256(shape_of(text).encode()).hexdigest()


async def next_form(form: Form, text: str, refusals: list[BuildFailed]) -> Form:
    """The form to try next.

    `refusals`: Go's, of each form that was tried, the last one of `form`.

    Raises:
        BuildFailed: there is none; the refusal that is of use to the caller.
    """
    refused = refusals[-1]
    output = refused.details.get("output", "")
    better = form
    if refused.complaint is Complaint.no_value:
        better = form._replace(statement=True)
    elif refused.complaint is Complaint.mismatch:
        better = form._replace(links=await asyncio.to_thread(more_links, text, form.links, output))
    if better == form or len(refusals) == MAX_FORMS:
        raise refusals[0] if _OURS.search(output) else refused
    return better
