"""Differences between a checkpoint's options and the current ones, and which of them a run can resume with."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

NET_KEYS_THAT_KEEP_WEIGHTS = (  # keys of netG that change neither the weights nor their meaning
    "use_checkpoint_attn", "use_checkpoint_ffn", "no_checkpoint_attn_blocks", "no_checkpoint_ffn_blocks",
    "spynet_path", "guide.weights", "init_type", "drop_path_rate",
)  # fmt: skip
AT_START_ONLY = (
    "netG.spynet_path", "netG.guide.weights", "netG.init_type", "path.pretrained_netG", "path.pretrained_netE",
    "path.shipped_netG", "train.G_param_strict", "train.E_param_strict",
)  # fmt: skip
LONGEST_VALUE = 200  # characters shown of a value


@dataclass(frozen=True)
class Change:
    """An option with its old and new value; null where that version of the program lacks the option."""

    key: str
    old: Any
    new: Any
    known: bool = True  # both versions of the program have the option

    @property
    def is_refused(self) -> bool:
        """Whether the new value does not fit the run's weights."""
        block, _, name = self.key.partition(".")
        return self.known and block == "netG" and name not in NET_KEYS_THAT_KEEP_WEIGHTS

    def __str__(self) -> str:
        note = " (no effect: the weights come from the checkpoint)" if self.key in AT_START_ONLY else ""
        return f"{self.key}: {_shown(self.old)} -> {_shown(self.new)}{note}"


def changes(old: Mapping[str, Any], new: Mapping[str, Any], place: str = "") -> Iterator[Change]:
    """Yield every option that differs, by dotted key; blocks present in both, also of lists, are compared by key."""
    for key in dict.fromkeys((*old, *new)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from changes(before, after, f"{place}{key}.")
        elif _are_blocks(before) and _are_blocks(after) and len(before) == len(after):
            for number, (one, other) in enumerate(zip(before, after, strict=True)):
                yield from changes(one, other, f"{place}{key}.{number}.")
        elif before != after:
            yield Change(place + key, before, after, known=key in old and key in new)


def _are_blocks(value: Any) -> TypeGuard[Sequence[Mapping[str, Any]]]:
    return isinstance(value, list | tuple) and all(isinstance(item, Mapping) for item in value)


def options_hash(options: Mapping[str, Any]) -> str:
    """Twelve hex digits that identify resolved options (JSON values without secrets)."""
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:12]


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "..."
