"""The three prompts that the demo sends to its model, word for word."""

from mlserver_chat import Message as ChatMessage
from mlserver_classifier import prompt as classifier_prompt
from mlserver_classifier.settings import RouteSettings

Message = dict[str, str]

STATUS_SYSTEM = "You are the QA team's status desk."
SUPPORT_SYSTEM = "You are a friendly IT support desk. Give short, practical steps."

ROUTES = (
    RouteSettings(name="status", description="asks for the status of an issue, ticket or case"),
    RouteSettings(name="support", description="everything else: troubleshooting, questions, small talk"),
)
NOT_FOUND = "not found in the tracker"
NO_NUMBER = "no issue number given"
HISTORY_MESSAGES = 10


def message(role: str, content: str) -> Message:
    """Build a chat message."""
    return {"role": role, "content": content}


def classification_messages(conversation: list[Message]) -> list[Message]:
    """Build the prompt for a route, as the classifier does for the demo."""
    turns = [ChatMessage.of_text(turn["role"], turn["content"]) for turn in conversation]
    return [message(turn.role, turn.text) for turn in classifier_prompt.classification_messages(turns, ROUTES)]


def status_messages(conversation: list[Message], issue_number: str, issue_status: str) -> list[Message]:
    """Build the prompt for a status answer: the conversation and the tracker's entry for the number."""
    lookup = message("user", f"Provide the status of {issue_number}. It is: {issue_status}")
    return [message("system", STATUS_SYSTEM), *conversation[-HISTORY_MESSAGES:], lookup]


def support_messages(conversation: list[Message]) -> list[Message]:
    """Build the prompt for a support answer: the conversation, which ends with the user's turn."""
    return [message("system", SUPPORT_SYSTEM), *conversation[-HISTORY_MESSAGES:]]
