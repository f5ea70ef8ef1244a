"""What bodies say of users and tokens: all that is wrong with one at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from taskhub.domain.task import JSON
from taskhub.services.accounts import (
    MOST_DAYS,
    SHORTEST,
    is_good_password,
    name_problem,
    password_rule,
    token_name_problem,
)
from taskhub.services.roles import Role
from taskhub.spec.fields import Fields, Findings

ROLES: Final = ", ".join(role.word for role in Role)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUser:
    """A user to be made."""

    username: str
    password: str
    role: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class UserChange:
    """What is to be different; None stays as it is."""

    role: Role | None
    disabled: bool | None
    password: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewToken:
    """An API token to be made; without a role its user's, without days for ever."""

    name: str
    role: Role | None
    days: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordChange:
    """A new password, and the old one to show that it is its user who asks."""

    old: str
    new: str


def load_user(body: JSON) -> NewUser:
    """Return a user with a good name, password and role; raise `InvalidError`."""
    findings = Findings()
    fields = Fields.of(body, "", findings)
    fields.only(frozenset({"username", "password", "role"}))
    username = fields.text("username")
    if _is_text(fields, "username") and (problem := name_problem(username)):
        fields.wrong("username", problem)
    user = NewUser(
        username=username,
        password=_password(fields, "password"),
        role=(_role(fields) if "role" in fields.value else None) or Role.VIEWER,
    )
    findings.raise_any()
    return user


def load_change(body: JSON) -> UserChange:
    """Return at least one change of a user; raise `InvalidError`."""
    findings = Findings()
    fields = Fields.of(body, "", findings)
    known = frozenset({"role", "disabled", "password"})
    fields.only(known)
    given = fields.value.keys() & known
    if not given and not findings.problems:
        findings.field("", "must have at least one of role, disabled, password")
    change = UserChange(
        role=_role(fields) if "role" in given else None,
        disabled=fields.flag("disabled", default=False) if "disabled" in given else None,
        password=_password(fields, "password") if "password" in given else None,
    )
    findings.raise_any()
    return change


def load_token(body: JSON) -> NewToken:
    """Return a token to be made; raise `InvalidError`."""
    findings = Findings()
    fields = Fields.of(body, "", findings)
    fields.only(frozenset({"name", "role", "days"}))
    name = fields.text("name")
    if _is_text(fields, "name") and (problem := token_name_problem(name)):
        fields.wrong("name", problem)
    given = fields.value.keys()
    token = NewToken(
        name=name,
        role=_role(fields) if "role" in given else None,
        days=fields.integer("days", 1, least=1, most=MOST_DAYS) if "days" in given else None,
    )
    findings.raise_any()
    return token


def load_password_change(body: JSON) -> PasswordChange:
    """Return both passwords; raise `InvalidError`."""
    findings = Findings()
    fields = Fields.of(body, "", findings)
    fields.only(frozenset({"old", "new"}))
    if "old" not in fields.value:
        fields.wrong("old", "is missing")
    change = PasswordChange(old=fields.text("old"), new=_password(fields, "new"))
    findings.raise_any()
    return change


def _is_text(fields: Fields, name: str) -> bool:
    return isinstance(fields.value.get(name, ""), str)


def _role(fields: Fields) -> Role | None:
    word = fields.text("role")
    role = {role.word: role for role in Role}.get(word)
    if role is None and _is_text(fields, "role"):
        fields.wrong("role", f"must be one of {ROLES}")
    return role


def _password(fields: Fields, name: str) -> str:
    password = fields.text(name)
    if _is_text(fields, name) and not is_good_password(password):
        fields.wrong(name, password_rule(SHORTEST))
    return password
