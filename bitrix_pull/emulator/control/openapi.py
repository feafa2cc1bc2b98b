"""The description of the control API (OpenAPI 3.1), made from its operations."""

import re
from typing import Any

from pydantic.json_schema import models_json_schema

from bitrix_pull.emulator.control.operations import OPERATIONS, Operation

_SCHEMAS = "#/components/schemas/"


def describe_api(server_url: str) -> dict[str, Any]:
    """Return it."""
    models = {operation.order for operation in OPERATIONS if operation.order is not None}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, schemas = models_json_schema(
        [(model, "validation") for model in ordered], ref_template=_SCHEMAS + "{model}"
    )
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.verb.lower()] = _describe(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Control API of the bitrix_pull emulator", "version": "1"},
        "servers": [{"url": server_url}],
        "paths": paths,
        "components": {"schemas": schemas.get("$defs", {})},
    }


def _describe(operation: Operation) -> dict[str, Any]:
    words = re.sub(r"[^a-z]+", " ", operation.path).split()
    parameters = [
        _parameter("portal", "Which portal, from 0 on.", "integer"),
        *(_parameter(name, meaning, "string") for name, meaning in operation.query),
    ]
    if "{id}" in operation.path:
        parameters.append(_parameter("id", "Its number.", "integer", place="path"))
    described: dict[str, Any] = {
        "operationId": "_".join([operation.verb.lower(), *words]),
        "summary": operation.summary,
        "parameters": parameters,
        "responses": {
            "200": {"description": "Done.", "content": {"application/json": {"schema": {}}}},
            "404": {"description": "There is no such portal or record."},
            "422": {"description": "The body is not as it should be; `error` says where."},
        },
    }
    if operation.order is not None:
        schema = {"$ref": _SCHEMAS + operation.order.__name__}
        described["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    return described


def _parameter(name: str, meaning: str, kind: str, *, place: str = "query") -> dict[str, Any]:
    schema = {"type": kind}
    required = place == "path"
    return {"name": name, "in": place, "required": required, "description": meaning, "schema": schema}
