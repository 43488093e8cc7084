"""What W&B has and this server has not: listings are empty, changes are refused in words."""

from __future__ import annotations

from registry.backend.context import Context
from registry.backend.graphql.errors import OperationError
from registry.backend.graphql.fields import FieldSet
from registry.backend.paging import Page

fields = FieldSet()


@fields.on("Project", "sweeps", "allViews")
@fields.on("Entity", "integrations", "triggers")
@fields.on("User", "projects")
def nothing(
    _context: Context, _source: object, *, first: int | None = None, **_arguments: object
) -> dict[str, object]:
    """Return an empty list: sweeps, reports, automations and integrations are not kept."""
    return Page.of(first, None).cut([])


@fields.on("Project", "sweep")
def sweep(_context: Context, _source: object, **_arguments: object) -> None:
    """Return null: there is no sweep of any name."""


fields.constants("Project", {"totalSweeps": 0, "runQueues": [], "triggers": []})


@fields.mutation("upsertSweep", "createAgent", "agentHeartbeat")
def refuse_sweeps(_context: Context, **_arguments: object) -> None:
    """Refuse sweeps.

    Raises:
        OperationError: always.
    """
    raise OperationError("This server has no sweeps; it keeps runs, artifacts and a registry.")


@fields.mutation("createFilterTrigger", "updateFilterTrigger", "deleteTrigger")
def refuse_automations(_context: Context, **_arguments: object) -> None:
    """Refuse automations.

    Raises:
        OperationError: always.
    """
    raise OperationError("This server has no automations.")


@fields.mutation("createRunQueue", "upsertRunQueue", "pushToRunQueue", "createLaunchAgent")
def refuse_launch(_context: Context, **_arguments: object) -> None:
    """Refuse run queues.

    Raises:
        OperationError: always.
    """
    raise OperationError("This server has no run queues; it does not launch anything.")


@fields.mutation(
    "createTeam",
    "createInvite",
    "deleteInvite",
    "createServiceAccount",
    "createUser",
    "generateApiKey",
    "deleteApiKey",
)
def refuse_users(_context: Context, **_arguments: object) -> None:
    """Refuse what needs more than one user.

    Raises:
        OperationError: always.
    """
    raise OperationError("This is a single-user server: users, teams and keys are fixed.")
