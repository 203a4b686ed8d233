"""One call to a model done well: a client, the providers' dialects, what an answer is."""

from asyncflow.llm.client import LLMClient, LLMStatistics
from asyncflow.llm.completion import Completion, ToolCall, Usage

__all__ = ["Completion", "LLMClient", "LLMStatistics", "ToolCall", "Usage"]
