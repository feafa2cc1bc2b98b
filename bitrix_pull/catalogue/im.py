"""Chats and notifications (module ``im``): they reach every member, without a watch."""

from typing import Any, cast

from pydantic import Field, model_validator

from bitrix_pull.catalogue.base import Date, Flag, Items, Map, Number, PortalModel, Text, Tolerant


class User(Tolerant):
    """Who takes part in a chat."""

    id: Number = None
    name: Text = None
    first_name: Text = None
    last_name: Text = None
    work_position: Text = None
    status: Text = None
    active: Flag = None
    bot: Flag = None
    extranet: Flag = None


class Chat(Tolerant):
    """A chat, a channel or an open line."""

    id: Number = None
    name: Text = None
    owner: Number = None
    type: Text = None
    message_type: Text = None
    entity_type: Text = None
    entity_id: Text = None
    extranet: Flag = None


class File(Tolerant):
    """A file of a message."""

    id: Number = None
    chat_id: Number = None
    author_id: Number = None
    name: Text = None
    type: Text = None
    extension: Text = None
    size: Number = None
    date: Date = None


class Message(Tolerant):
    """One message of a chat."""

    id: Number = None
    chat_id: Number = None
    sender_id: Number = None
    recipient_id: Number = None
    prev_id: Number = None
    template_id: Text = None
    text: Text = None
    text_legacy: Text = None
    system: Flag = None
    is_important: Flag = None
    date: Date = None
    params: Map[Any] = {}
    forward: Map[Any] = {}


class NewMessage(PortalModel, module="im", commands=("message", "messageChat")):
    """A message has come, to a private dialog, a chat, a channel or an open line.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    chat_id: Number = None
    dialog_id: Text = None
    message: Message = Message()
    users: Map[User] = {}
    files: Map[File] = {}
    chat: Map[Chat] = {}
    counter: Number = None
    notify: Flag = None
    lines: Map[Any] = {}

    @property
    def sender(self) -> User | None:
        """Who wrote it, if the portal has told of them."""
        return self.users.get(str(self.message.sender_id))


class MessageUpdated(PortalModel, module="im", commands=("messageUpdate",)):
    """A message was edited.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    id: Number = None
    type: Text = None
    text: Text = None
    text_legacy: Text = None
    chat_id: Number = None
    sender_id: Number = None
    dialog_id: Text = None
    params: Map[Any] = {}
    from_user_id: Number = None
    to_user_id: Number = None


class DeletedMessage(Tolerant):
    """A message that was deleted; what is left of it."""

    id: Number = None
    sender_id: Number = None
    text: Text = None
    params: Map[Any] = {}
    completely_deleted: Flag = None


class MessagesDeleted(
    PortalModel,
    module="im",
    commands=("messageDeleteV2", "messageDelete", "messageDeleteComplete"),
):
    """Messages were deleted. Older portals tell of one at a time; it is in ``messages`` all the same.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    chat_id: Number = None
    dialog_id: Text = None
    type: Text = None
    messages: Items[DeletedMessage] = []
    counter: Number = None
    new_last_message: Map[Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _take_one_message(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "messages" in value or "id" not in value:
            return cast("Any", value)
        params = cast("dict[str, Any]", value)
        return {**params, "messages": [params]}


class ChatRead(PortalModel, module="im", commands=("readMessageChat", "readMessage")):
    """I have read a chat, here or on another device.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    dialog_id: Text = None
    chat_id: Number = None
    last_id: Number = None
    counter: Number = None
    muted: Flag = None
    unread: Flag = None
    viewed_messages: Items[Number] = []


class ChatReadByOther(PortalModel, module="im", commands=("readMessageChatOpponent", "readMessageOpponent")):
    """Somebody else has read a chat.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    dialog_id: Text = None
    chat_id: Number = None
    user_id: Number = None
    user_name: Text = None
    last_id: Number = None
    date: Date = None
    viewed_messages: Items[Number] = []
    chat_message_status: Text = None


class Typing(PortalModel, module="im", commands=("inputActionNotify", "startWriting")):
    """Somebody is typing, recording or the like; ``duration`` is in milliseconds.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    dialog_id: Text = None
    user_id: Number = None
    user_name: Text = None
    type: Text = None
    duration: Number = None


class Reactions(Tolerant):
    """The reactions to a message as they are now."""

    reaction: Map[Any] = {}
    users_short: Items[Any] = []


class ReactionAdded(PortalModel, module="im", commands=("addReaction",)):
    """Somebody has reacted to a message.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    user_id: Number = None
    reaction: Text = None
    dialog_id: Text = None
    actual_reactions: Reactions = Reactions()


class ReactionRemoved(PortalModel, module="im", commands=("deleteReaction",)):
    """Somebody has taken a reaction back.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    user_id: Number = None
    reaction: Text = None
    dialog_id: Text = None
    actual_reactions: Reactions = Reactions()


class UsersAdded(PortalModel, module="im", commands=("chatUserAdd",)):
    """Users were added to a chat.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    chat_id: Number = None
    dialog_id: Text = None
    chat_title: Text = None
    chat_owner: Number = None
    chat_extranet: Flag = None
    users: Map[User] = {}
    new_users: Items[Number] = []
    user_count: Number = None
    call_token: Text = Field(None, repr=False)


class UserLeft(PortalModel, module="im", commands=("chatUserLeave",)):
    """A user has left a chat, or was removed.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    chat_id: Number = None
    dialog_id: Text = None
    chat_title: Text = None
    user_id: Number = None
    message: Text = None
    user_count: Number = None


class ChatUpdated(PortalModel, module="im", commands=("chatUpdate",)):
    """A chat was changed.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    chat: Chat = Chat()


class ChatRenamed(PortalModel, module="im", commands=("chatRename",)):
    """A chat has another name.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    chat_id: Number = None
    name: Text = None


class ChatAvatarChanged(PortalModel, module="im", commands=("chatAvatar",)):
    """A chat has another picture; ``avatar`` is its address.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    chat_id: Number = None
    avatar: Text = None


class ChatOwnerChanged(PortalModel, module="im", commands=("chatOwner",)):
    """A chat has another owner.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    dialog_id: Text = None
    chat_id: Number = None
    user_id: Number = None


class ChatDeleted(PortalModel, module="im", commands=("chatDelete",)):
    """A chat was deleted. This one comes by the portal's shared channel.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    chat_id: Number = None
    dialog_id: Text = None
    type: Text = None
    user_id: Number = None


class NewNotification(PortalModel, module="im", commands=("notifyAdd",)):
    """A notification has come; ``setting_name`` is ``module|event``.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    id: Number = None
    type: Text = None
    date: Date = None
    text: Text = None
    title: Text = None
    tag: Text = None
    setting_name: Text = None
    buttons: Items[Any] = []
    params: Map[Any] = {}
    counter: Number = None
    user_id: Number = None
    user_name: Text = None


class NotificationsRead(PortalModel, module="im", commands=("notifyRead",)):
    """Notifications were read.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    chat_id: Number = None
    ids: Items[Number] = Field([], validation_alias="list")
    counter: Number = None


class NotificationDeleted(PortalModel, module="im", commands=("notifyDelete",)):
    """Notifications were deleted; ``id`` is as the portal wrote it.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    id: Any = None
    counter: Number = None


class MessageParamsUpdated(PortalModel, module="im", commands=("messageParamsUpdate",)):
    """Attachments or the keyboard of a message were changed.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    id: Number = None
    type: Text = None
    chat_id: Number = None
    params: Map[Any] = {}
