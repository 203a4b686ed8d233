"""One call to a model done well: a client, the providers' dialects, what an answer is."""

from asyncflow.llm.cache import Cache
from asyncflow.llm.client import LLMClient
from asyncflow.llm.completion import Completion, ToolCall, Usage
from asyncflow.llm.embeddings import Embeddings
from asyncflow.llm.estimate import Estimate, Range
from asyncflow.llm.price import Price
from asyncflow.llm.statistics import LLMStatistics
from asyncflow.llm.stream import TextStream

__all__ = [
    "Cache",
    "Completion",
    "Embeddings",
    "Estimate",
    "LLMClient",
    "LLMStatistics",
    "Price",
    "Range",
    "TextStream",
    "ToolCall",
    "Usage",
]
