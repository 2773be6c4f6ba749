"""Every route asks for a key, and every role may do what the table says and no more."""

import re
from collections.abc import Callable, Iterator

import pytest
from fastapi.routing import APIRoute

from api.conftest import House
from assay.api.app import ROUTERS
from assay.api.calls import Allow
from assay.published import RIGHTS, Right, Role, anonymous_rights

#: What each route asks for, written out by hand; a new route must be added here.
ASKED = {
    "POST /experiments": Right.EDIT,
    "GET /experiments": Right.READ,
    "GET /experiments/{experiment}": Right.READ,
    "PUT /experiments/{experiment}": Right.EDIT,
    "PATCH /experiments/{experiment}": Right.EDIT,
    "DELETE /experiments/{experiment}": Right.EDIT,
    "POST /experiments/{experiment}/start": Right.EDIT,
    "POST /experiments/{experiment}/pause": Right.EDIT,
    "POST /experiments/{experiment}/resume": Right.EDIT,
    "POST /experiments/{experiment}/stop": Right.EDIT,
    "POST /experiments/{experiment}/archive": Right.EDIT,
    "GET /experiments/{experiment}/history": Right.READ,
    "GET /experiments/{experiment}/phases": Right.READ,
    "GET /experiments/{experiment}/preregistration": Right.READ,
    "GET /experiments/{experiment}/checklist": Right.READ,
    "POST /experiments/{experiment}/duplicate": Right.EDIT,
    "POST /templates": Right.EDIT,
    "GET /templates": Right.READ,
    "GET /templates/{template}": Right.READ,
    "DELETE /templates/{template}": Right.EDIT,
    "GET /experiments/{experiment}/variants": Right.READ,
    "POST /experiments/{experiment}/variants": Right.EDIT,
    "GET /experiments/{experiment}/variants/{variant}": Right.READ,
    "PUT /experiments/{experiment}/variants/{variant}": Right.EDIT,
    "PATCH /experiments/{experiment}/variants/{variant}": Right.EDIT,
    "DELETE /experiments/{experiment}/variants/{variant}": Right.EDIT,
    "PUT /experiments/{experiment}/segments/{segment}": Right.EDIT,
    "DELETE /experiments/{experiment}/segments/{segment}": Right.EDIT,
    "GET /experiments/{experiment}/overrides": Right.READ,
    "PUT /experiments/{experiment}/overrides/{unit_id}": Right.EDIT,
    "DELETE /experiments/{experiment}/overrides/{unit_id}": Right.EDIT,
    "GET /experiments/{experiment}/assignments": Right.READ,
    "GET /experiments/{experiment}/events/ledger": Right.READ,
    "GET /experiments/{experiment}/report": Right.READ,
    "GET /experiments/{experiment}/results": Right.READ,
    "POST /experiments/{experiment}/results": Right.READ,
    "GET /experiments/{experiment}/stats": Right.READ,
    "GET /experiments/{experiment}/timeseries": Right.READ,
    "GET /experiments/{experiment}/export": Right.READ,
    "POST /metric-definitions": Right.EDIT,
    "GET /metric-definitions": Right.READ,
    "GET /metric-definitions/{metric}": Right.READ,
    "GET /metric-definitions/{metric}/versions": Right.READ,
    "PUT /metric-definitions/{metric}": Right.EDIT,
    "PATCH /metric-definitions/{metric}": Right.EDIT,
    "DELETE /metric-definitions/{metric}": Right.EDIT,
    "POST /metric-definitions/{metric}/archive": Right.EDIT,
    "POST /metric-definitions/{metric}/restore": Right.EDIT,
    "POST /holdouts": Right.EDIT,
    "GET /holdouts": Right.READ,
    "GET /holdouts/{holdout}": Right.READ,
    "PUT /holdouts/{holdout}": Right.EDIT,
    "PATCH /holdouts/{holdout}": Right.EDIT,
    "POST /layers": Right.EDIT,
    "GET /layers": Right.READ,
    "GET /layers/{layer}": Right.READ,
    "PUT /layers/{layer}": Right.EDIT,
    "PATCH /layers/{layer}": Right.EDIT,
    "DELETE /layers/{layer}": Right.EDIT,
    "POST /segments": Right.EDIT,
    "GET /segments": Right.READ,
    "POST /segments/assign-user": Right.EDIT,
    "POST /segments/assign-experiment": Right.EDIT,
    "DELETE /segments/unassign-experiment": Right.EDIT,
    "GET /segments/{segment}": Right.READ,
    "PUT /segments/{segment}": Right.EDIT,
    "PATCH /segments/{segment}": Right.EDIT,
    "DELETE /segments/{segment}": Right.EDIT,
    "GET /segments/{segment}/users": Right.READ,
    "POST /segments/{segment}/users": Right.EDIT,
    "PUT /segments/{segment}/users/{user_id}": Right.EDIT,
    "DELETE /segments/{segment}/users/{user_id}": Right.EDIT,
    "POST /users": Right.ADMIN,
    "GET /users": Right.READ,
    "GET /users/{user_id}": Right.READ,
    "PUT /users/{user_id}": Right.ADMIN,
    "DELETE /users/{user_id}": Right.ADMIN,
    "POST /auth/keys": Right.ADMIN,
    "GET /auth/keys": Right.ADMIN,
    "DELETE /auth/keys/{key}": Right.ADMIN,
    "GET /audit": Right.READ,
    "GET /events": Right.READ,
    "POST /events/{experiment_id}": Right.READ,
    "GET /events/{event_id}": Right.READ,
    "POST /experiments/{experiment}/ramp/halt": Right.EDIT,
    "POST /experiments/{experiment}/ramp/resume": Right.EDIT,
    "POST /segments/preview": Right.READ,
    "GET /experiments/{experiment}/audience": Right.READ,
    "POST /segments/{segment}/members": Right.EDIT,
    "PUT /segments/{segment}/members": Right.EDIT,
    "DELETE /segments/{segment}/members": Right.EDIT,
    "POST /experiments/{experiment}/report/refresh": Right.EDIT,
    "GET /experiments/{experiment}/report/history": Right.READ,
    "GET /experiments/{experiment}/report/history/{snapshot}": Right.READ,
    "POST /experiments/{experiment}/looks": Right.EDIT,
    "GET /experiments/{experiment}/looks": Right.READ,
}


def routes() -> Iterator[tuple[str, APIRoute]]:
    for router in ROUTERS:
        for route in router.routes:
            assert isinstance(route, APIRoute)
            for method in route.methods or ():
                yield f"{method} {route.path_format}", route


def url(name: str) -> tuple[str, str]:
    """A request for a route, about things that do not exist."""
    method, _, path = name.partition(" ")
    return method, f"/api/v1{re.sub(r'{[a-z_]+}', '999999', path)}"


def test_the_table_is_complete_and_true() -> None:
    found = {}
    for name, route in routes():
        rights = [each.call.right for each in route.dependant.dependencies if isinstance(each.call, Allow)]
        assert len(rights) == 1, name
        assert isinstance(route.dependant.dependencies[0].call, Allow), (
            f"{name} does something before it asks"
        )
        found[name] = rights[0]
    assert found == ASKED


def test_no_route_answers_without_a_key(house: House) -> None:
    before = house.counts()
    for name in ASKED:
        method, path = url(name)
        for headers in (
            {},
            {"Authorization": "Bearer assay_wrong"},
            {"Authorization": "Bearer"},
            {"Authorization": "Bearer "},
            {"Authorization": f"Basic {house.secrets['admin']}"},
            {"Authorization": house.secrets["admin"]},
        ):
            # The body is wrong in every way: who may not ask must not learn anything from it.
            response = house.ask(method, path, role=None, headers=headers, content=b"\xff{")
            assert response.status_code == 401, (name, headers)
            assert response.headers["www-authenticate"] == 'Bearer realm="assay"'
            assert response.headers["content-type"] == "application/problem+json"
            assert response.json()["status"] == 401
    assert house.counts() == before


@pytest.mark.parametrize("role", list(Role))
def test_each_role_may_do_what_the_table_says(house: House, role: Role) -> None:
    for name, right in ASKED.items():
        method, path = url(name)
        response = house.ask(method, path, role=role.value, content=b"[")
        if right in RIGHTS[role]:
            assert response.status_code not in {401, 403}, name
        else:
            assert response.status_code == 403, name
            assert response.json()["code"] == "role_forbids"


@pytest.mark.parametrize("role", ["client", "viewer"])
def test_anonymous_calls_may_do_what_the_setting_says(house_with: Callable[..., House], role: str) -> None:
    house = house_with(anonymous=anonymous_rights(role))
    for name, right in ASKED.items():
        method, path = url(name)
        response = house.ask(method, path, role=None, content=b"[")
        if right in anonymous_rights(role):
            assert response.status_code not in {401, 403}, name
        else:
            assert response.status_code == 401, name
    # A wrong key is wrong even where none is needed.
    assert (
        house.ask("GET", "/experiments", role=None, headers={"Authorization": "Bearer x"}).status_code == 401
    )


def test_a_key_from_the_environment_is_an_admin(house: House) -> None:
    assert house.ask("GET", "/auth/keys", role="environment").status_code == 200
    house.ask("POST", "/api/v1/experiments", {"name": "x"}, role="environment")
    entry = house.ask("GET", "/api/v1/audit").json()["entries"][0]
    assert (entry["actor"], entry["key_id"]) == ("environment key 1", None)


def test_the_scheme_is_read_in_any_case(house: House) -> None:
    headers = {"Authorization": f"bearer {house.secrets['viewer']}"}
    assert house.ask("GET", "/experiments", role=None, headers=headers).status_code == 200
