"""What W&B has and this server has not: listings are empty, changes are refused in words."""

from __future__ import annotations

from registry.backend.context import Context
from registry.backend.graphql.errors import OperationError
from registry.backend.graphql.fields import FieldSet
from registry.backend.paging import Page

fields = FieldSet()


def _declare_empty(owner: str, field: str, connection: str) -> None:
    @fields.on(owner, field)
    def nothing(
        _context: Context, _source: object, *, first: int | None = None, **_arguments: object
    ) -> dict[str, object]:
        # SDKs check the type's name even of an empty list.
        typename = {"__typename": connection}
        return Page.of(first, None).cut([], **typename)


_declare_empty("Project", "sweeps", "SweepConnection")
_declare_empty("Project", "allViews", "ViewConnection")
_declare_empty("Entity", "integrations", "IntegrationConnection")
_declare_empty("Entity", "triggers", "TriggerConnection")


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
