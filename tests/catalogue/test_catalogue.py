"""The models of what portals send: which commands they are of, what they take, what they show."""

import copy
import pickle
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AliasChoices, Field, ValidationError

from bitrix_pull.catalogue import PortalModel, crm, im, main, online, openlines, tasks, telephony
from bitrix_pull.catalogue.base import Date, Flag, Items, Map, Number, Text, Tolerant
from bitrix_pull.dispatch.router import Router
from bitrix_pull.errors import InvalidArgument
from bitrix_pull.events import PullEvent
from tests.dispatch.rig import event, running

ROOMS = (crm, im, main, online, openlines, tasks, telephony)


def models_of(room: ModuleType) -> list[type[Tolerant]]:
    own = [
        item for item in vars(room).values() if isinstance(item, type) and item.__module__ == room.__name__
    ]
    return [item for item in own if issubclass(item, Tolerant)]


PARTS = [model for room in ROOMS for model in models_of(room)]
MODELS = [model for model in PARTS if issubclass(model, PortalModel)]

COMMANDS = [
    (im.NewMessage, "im", ["message", "messageChat"]),
    (im.MessageUpdated, "im", ["messageUpdate"]),
    (im.MessagesDeleted, "im", ["messageDeleteV2", "messageDelete", "messageDeleteComplete"]),
    (im.ChatRead, "im", ["readMessageChat", "readMessage"]),
    (im.ChatReadByOther, "im", ["readMessageChatOpponent", "readMessageOpponent"]),
    (im.Typing, "im", ["inputActionNotify", "startWriting"]),
    (im.ReactionAdded, "im", ["addReaction"]),
    (im.ReactionRemoved, "im", ["deleteReaction"]),
    (im.UsersAdded, "im", ["chatUserAdd"]),
    (im.UserLeft, "im", ["chatUserLeave"]),
    (im.ChatUpdated, "im", ["chatUpdate"]),
    (im.ChatRenamed, "im", ["chatRename"]),
    (im.ChatAvatarChanged, "im", ["chatAvatar"]),
    (im.ChatOwnerChanged, "im", ["chatOwner"]),
    (im.ChatDeleted, "im", ["chatDelete"]),
    (im.NewNotification, "im", ["notifyAdd"]),
    (im.NotificationsRead, "im", ["notifyRead"]),
    (im.NotificationDeleted, "im", ["notifyDelete"]),
    (im.MessageParamsUpdated, "im", ["messageParamsUpdate"]),
    (tasks.TaskAdded, "tasks", ["task_add"]),
    (tasks.TaskUpdated, "tasks", ["task_update"]),
    (tasks.TaskRemoved, "tasks", ["task_remove"]),
    (tasks.CommentAdded, "tasks", ["comment_add"]),
    (tasks.CommentDeleted, "tasks", ["comment_delete"]),
    (tasks.TaskViewed, "tasks", ["task_view"]),
    (tasks.Counters, "tasks", ["user_counter"]),
    (telephony.IncomingCall, "voximplant", ["invite"]),
    (telephony.CallStarted, "voximplant", ["start"]),
    (telephony.CallTimedOut, "voximplant", ["timeout"]),
    (telephony.CallAnswered, "voximplant", ["answer_self"]),
    (telephony.CallHeld, "voximplant", ["hold"]),
    (telephony.CallResumed, "voximplant", ["unhold"]),
    (telephony.ExternalCallShown, "voximplant", ["showExternalCall"]),
    (telephony.ExternalCallHidden, "voximplant", ["hideExternalCall"]),
    (openlines.SessionUpdated, "imopenlines", ["updateSessionStatus"]),
    (openlines.SessionAnswered, "imopenlines", ["linesAnswer"]),
    (main.Counters, "main", ["user_counter"]),
    (online.StatusChanged, "online", ["userStatus"]),
    (crm.KanbanUpdated, "crm", ["CRM_KANBANUPDATED_DEAL_3"]),
    (crm.ItemUpdated, "crm", ["ITEMUPDATED_DEAL_7"]),
    (crm.TimelineChanged, "crm", ["timeline_item_action"]),
]


def test_every_model_is_listed_here() -> None:
    assert {model for model, *_ in COMMANDS} == set(MODELS)


@pytest.mark.parametrize(("model", "module", "commands"), COMMANDS)
async def test_a_handler_gets_all_commands_of_its_model(
    model: type[PortalModel], module: str, commands: list[str]
) -> None:
    router, seen = Router(), list[PullEvent[Any]]()
    router.on(model)(seen.append)
    async with running(router) as rig, rig.subscribe() as everything:
        rig.put(*(event(number, command, module) for number, command in enumerate([*commands, "other"])))
        for _ in commands:
            assert isinstance((await anext(everything)).params, dict)
    assert [item.command for item in seen] == commands
    assert all(type(item.params) is model for item in seen)
    assert all("n" in item.raw for item in seen)


@pytest.mark.parametrize("model", MODELS)
def test_each_says_that_it_is_provisional_and_from_where(model: type[PortalModel]) -> None:
    assert "Provisional, from the portal's code of 20" in (model.__doc__ or "")


# -- whatever comes -----------------------------------------------------------------

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["Y", "N", "", "0", "7", "2026-05-01T10:00:00+03:00", 10**400, -1, 1e308])
)
KEYS = st.text(max_size=6) | st.sampled_from(["id", "ID", "__class__", "model_config", "copy", "_x"])
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def keys_of(model: type[Tolerant]) -> list[str]:
    """Return the names under which a portal may send the fields."""
    names: list[str] = []
    for field in model.model_fields.values():
        alias = field.validation_alias
        names += map(str, alias.choices if isinstance(alias, AliasChoices) else [alias])
    return names


@given(st.sampled_from(PARTS), JSON)
def test_no_json_ever_fails_a_model(model: type[Tolerant], content: Any) -> None:
    check(model, content)


@given(st.data())
def test_nor_does_it_in_a_field(data: st.DataObject) -> None:
    model = data.draw(st.sampled_from(PARTS))
    check(model, data.draw(st.dictionaries(st.sampled_from([*keys_of(model), "more"]), JSON, max_size=6)))


def check(model: type[Tolerant], content: Any) -> None:
    before = repr(content)
    made = model.model_validate(content)
    assert repr(content) == before, "what came is left as it is"
    assert repr(made)
    assert repr(copy.copy(made)) == repr(pickle.loads(pickle.dumps(made))) == repr(made)


@pytest.mark.parametrize("model", MODELS)
async def test_an_event_of_an_unexpected_form_is_handled_all_the_same(model: type[PortalModel]) -> None:
    router, seen = Router(), list[PullEvent[Any]]()
    router.on(model)(seen.append)
    (command, *_) = model.pull_commands
    contents: list[Any] = [[], "text", 7, {key: {"un": ["expected"]} for key in keys_of(model)}]
    async with running(router) as rig:
        rig.put(
            *(
                event(number, command.replace("*", "x"), model.pull_module, params=content)
                for number, content in enumerate(contents)
            )
        )
        await rig.idle()
        assert rig.failures == []
    assert [item.raw for item in seen] == contents


# -- what PHP writes ----------------------------------------------------------------


class Sample(Tolerant):
    user_id: Number = None
    name: Text = None
    is_open: Flag = None
    at: Date = None
    users: Map[im.User] = Field(default_factory=dict)
    ids: Items[Number] = Field(default_factory=list)
    chat: im.Chat = Field(default_factory=im.Chat)


NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


FORMS: list[tuple[str, list[Any], Any]] = [
    ("user_id", [7, "7", 7.0], 7),
    ("user_id", [None, False, True, "", "chat7", 7.5, [], {}, [7]], None),
    ("name", ["7", 7], "7"),
    ("name", [""], ""),
    ("name", [None, False, [], {}, ["7"]], None),
    ("is_open", [True, "Y", 1, "1", "true"], True),
    ("is_open", [False, "N", 0, "0", "false"], False),
    ("is_open", [None, "", "maybe", "on", 2, [], {}], None),
    ("at", ["2026-05-01T15:00:00+03:00", "2026-05-01T12:00:00Z", 1777636800], NOON),
    ("at", [None, False, "", "yesterday", [], {}, 10**30], None),
    ("users", [None, False, "", [], {}, 7], {}),
    ("users", [{"5": {"id": "5"}}], {"5": im.User(id=5)}),
    ("users", [[{"id": 5}]], {"0": im.User(id=5)}),
    ("users", [{"5": []}], {"5": im.User()}),
    ("ids", [None, False, "", [], {}, 7], []),
    ("ids", [["1", 2, "x"]], [1, 2, None]),
    ("ids", [{"1": "1", "3": 3}], [1, 3]),
    ("chat", [None, False, [], {}, 7, "x"], im.Chat()),
    ("chat", [{"ID": "3", "owner": 1}], im.Chat(id=3, owner=1)),
]


@pytest.mark.parametrize(
    ("field", "came", "read"), [(field, came, read) for field, all_came, read in FORMS for came in all_came]
)
def test_php_forms(field: str, came: Any, read: Any) -> None:
    made = Sample.model_validate({field: came})
    assert getattr(made, field) == read
    assert type(getattr(made, field)) is type(read)


@pytest.mark.parametrize("key", ["userId", "user_id", "USER_ID"])
def test_names_of_fields_in_all_the_portals_manners(key: str) -> None:
    assert Sample.model_validate({key: "7"}).user_id == 7


def test_what_is_unknown_is_kept() -> None:
    assert Sample.model_validate({"userId": 7, "later": {"a": 1}}).model_extra == {"later": {"a": 1}}


def test_a_message_as_portals_send_it() -> None:
    params = {
        "chatId": 12,
        "dialogId": "chat12",
        "message": {
            "id": 345,
            "senderId": "1",
            "date": "2026-05-01T15:00:00+03:00",
            "text": "hello",
            "system": "N",
            "params": [],
        },
        "users": {"1": {"id": 1, "name": "Ann", "email": "ann@acme.example"}},
        "files": [],
        "chat": {"12": {"id": 12, "name": "Sales", "type": "chat"}},
        "counter": 1,
        "notify": True,
    }
    new = im.NewMessage.model_validate(params)
    assert (new.chat_id, new.dialog_id, new.message.text, new.message.date) == (12, "chat12", "hello", NOON)
    assert new.message.system is False
    assert new.sender is not None
    assert new.sender.name == "Ann"
    assert new.chat["12"].name == "Sales"
    assert im.NewMessage.model_validate({}).sender is None


@pytest.mark.parametrize(
    "params",
    [
        {"chatId": 3, "messages": [{"id": 5, "text": "x", "senderId": 1, "params": []}]},
        {"chatId": 3, "id": "5", "text": "x", "senderId": "1", "params": []},
    ],
)
def test_the_forms_of_deletion_are_read_alike(params: dict[str, Any]) -> None:
    deleted = im.MessagesDeleted.model_validate(params)
    assert deleted.chat_id == 3
    assert [(item.id, item.text, item.sender_id) for item in deleted.messages] == [(5, "x", 1)]


# -- what is shown ------------------------------------------------------------------


@pytest.mark.parametrize("key", ["callToken", "logToken", "email", "phones", "personalBirthday"])
@pytest.mark.parametrize("model", PARTS)
def test_secrets_and_what_is_unknown_are_in_no_repr(model: type[Tolerant], key: str) -> None:
    assert "s3cret" not in repr(model.model_validate({key: "s3cret"}))
    assert "s3cret" not in str(model.model_validate({key: {"a": ["s3cret"]}}))


def test_telephone_numbers_are_in_no_repr() -> None:
    call = telephony.IncomingCall.model_validate(
        {"callId": "1", "phoneNumber": "+79991", "callerId": "+79991"}
    )
    assert call.phone_number == "+79991"
    assert "9991" not in repr(call)
    assert repr(call) == "IncomingCall(call_id='1')"


# -- models of one's own ------------------------------------------------------------


def test_two_models_of_one_command_are_an_error() -> None:
    with pytest.raises(
        InvalidArgument, match=r"Own is for im\.message, which .*im\.NewMessage is for already"
    ):

        class Own(PortalModel, module="im", commands=("messageOwn", "message")): ...

    class Other(PortalModel, module="im", commands=("messageOwn",)):
        """Of what was refused, nothing has stayed."""

    assert Other.pull_commands == ("messageOwn",)


def test_one_that_derives_is_of_the_same() -> None:
    class More(im.NewMessage):
        bot_id: Number = None

    assert (More.pull_module, More.pull_commands) == ("im", ("message", "messageChat"))
    assert More.model_validate({"botId": "7", "chatId": 3}).bot_id == 7


def test_a_field_of_ones_own_may_be_required() -> None:
    class Strict(im.NewMessage):
        bot_id: int

    assert Strict.model_validate({"botId": 7}).bot_id == 7
    for params in ({}, {"botId": "x"}):
        with pytest.raises(ValidationError):
            Strict.model_validate(params)


def test_the_same_may_be_defined_anew() -> None:
    for _ in range(2):  # As in a notebook.

        class Again(PortalModel, module="application", commands=("again",)): ...


@pytest.mark.parametrize(
    ("module", "commands"), [("", ("x",)), ("im", ()), ("im", "message"), ("im", ["x"]), (7, ("x",))]
)
def test_a_model_names_module_and_commands(module: Any, commands: Any) -> None:
    with pytest.raises(InvalidArgument, match="both"):

        class Own(PortalModel, module=module, commands=commands): ...


@pytest.mark.parametrize(
    ("given", "more", "complaint"),
    [
        ((im.NewMessage, im.Typing), {}, "says itself which commands"),
        ((im.NewMessage, "x"), {}, "says itself which commands"),
        ((im.NewMessage,), {"module": "im"}, "says itself which commands"),
        ((im.NewMessage,), {"model": im.Typing}, "says itself which commands"),
        ((im.User,), {}, "User does not say which command"),
        ((PortalModel,), {}, "PortalModel does not say which command"),
        (("x", im.NewMessage), {}, "command must be a non-empty string|parentheses"),
    ],
)
def test_a_model_in_the_place_of_commands_stands_alone(given: Any, more: Any, complaint: str) -> None:
    with pytest.raises(InvalidArgument, match=complaint):
        Router().on(*given, **more)
