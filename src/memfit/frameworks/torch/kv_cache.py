"""``KVCache``: a key/value cache for transformers' ``generate`` that keeps a byte budget and never gathers.

    model.generate(**inputs, past_key_values=memfit.KVCache(budget="64MiB"))

Keys and values lie where ``memfit.runtime.kv_cache`` puts them: appending copies the new tokens only, and what attention
reads is one strided tensor over reserved addresses, so a step costs the same after 4096 tokens as after 256. Numerics: the
stored numbers are those ``DynamicCache`` stores, bit for bit; attention reads them with other strides, so a kernel may sum in
another order.

Sharing: ``copy.deepcopy(cache)`` (transformers' recipe for a common prompt) and ``reorder_cache`` (beams) share full blocks
and copy the last one; ``begin(input_ids)`` starts from the longest known beginning of blocks that ``commit`` made known.
Every layer is kept whole, also one with a sliding window (its mask hides what lies behind). For inference on the CPU.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from memfit.errors import DeviceError
from memfit.runtime.kv_cache import KeyValueStore, LayerShape
from memfit.runtime.kv_rows import Rows
from memfit.units import parse_bytes

__all__ = ["KVCache"]

_OTHER_LAYERS = {"linear_attention", "mamba", "conv", "hybrid", "hybrid_sliding", "heavily_compressed_attention"}


class _Shared:
    """What caches of one family share: the store, once the first keys said how large a token is."""

    def __init__(self, budget: int, layers: int, longest: int) -> None:
        self.budget, self.expected, self.longest = budget, layers, longest
        self.store: KeyValueStore | None = None
        self.dtype: torch.dtype | None = None
        self.slots: dict[int, int] = {}  # layer of the model -> layer of the store
        self.shapes: list[tuple[int, int, int]] = []  # heads, numbers of a key, numbers of a value


class _Layer(CacheLayerMixin):
    """One layer's part of a ``KVCache``."""

    is_sliding = False
    is_croppable = True

    def __init__(self, cache: KVCache, index: int) -> None:
        super().__init__()
        self._shared = cache._shared
        self.index, self.slot, self.length = index, -1, 0
        self._rows: Rows | None = None
        self._cache = weakref.ref(cache)  # no cycle: a cache that nobody has gives its memory back at once
        self._one_key: tuple[int, ...] = ()
        self._one_value: tuple[int, ...] = ()

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Takes the shapes of the first keys and values; reserves addresses, touches no memory."""
        rows, heads = int(key_states.shape[0]), int(key_states.shape[1])
        dims = int(key_states.shape[3]), int(value_states.shape[3])
        if key_states.device.type != "cpu" or value_states.device.type != "cpu":
            raise DeviceError(
                str(key_states.device), "memfit.KVCache keeps keys and values in main memory; use a model on the CPU"
            )
        shared, item = self._shared, key_states.element_size()
        shape = LayerShape(heads, dims[0] * item, dims[1] * item)
        if shared.store is None:
            expected = shared.expected
            shared.store = KeyValueStore(shared.budget, shape, expected, shared.longest)
            shared.dtype = key_states.dtype
            if shared.longest and expected:
                blocks = shared.store.blocks_for(shared.longest) * rows
                shared.store.check_room(blocks, rows, shared.longest, shared.store.blocks_for(shared.longest))
        store = shared.store
        if self.index not in shared.slots:
            store.add_layer(shape)
            shared.slots[self.index] = len(shared.shapes)
            shared.shapes.append((heads, *dims))
        self.slot = shared.slots[self.index]
        cache = self._cache()
        assert cache is not None
        batch = cache._take_rows(rows)
        while len(batch.lengths) <= self.slot:
            batch.add_layer()
        self._attach(batch)
        self._check(key_states, value_states)

    def _attach(self, batch: Rows) -> None:
        """Shows what a batch holds; called again whenever its ranges are new."""
        store, dtype = self._shared.store, self._shared.dtype
        assert store is not None
        assert dtype is not None
        heads, key_dim, value_dim = self._shared.shapes[self.slot]
        room = store.lane_blocks * store.block_tokens
        whole = []
        for array, dim in zip(batch.bytes(self.slot), (key_dim, value_dim), strict=True):
            flat = torch.from_numpy(array).view(dtype)
            whole.append(flat.view(batch.count, room, heads, dim).transpose(1, 2))
        self._all_keys, self._all_values = whole
        self._append_keys = batch.appenders[2 * self.slot].append_tensor
        self._append_values = batch.appenders[2 * self.slot + 1].append_tensor
        self._key_strides, self._value_strides = self._all_keys.stride(), self._all_values.stride()
        self._item = self._all_keys.element_size()
        self._rows, self.dtype, self.device = batch, dtype, torch.device("cpu")
        self._one_key, self._one_value = (batch.count, heads, 1, key_dim), (batch.count, heads, 1, value_dim)
        self.is_initialized = True
        self._sync()

    def _sync(self) -> None:
        assert self._rows is not None
        self.length = self._rows.lengths[self.slot]
        self.keys = self._all_keys.narrow(2, 0, self.length)
        self.values = self._all_values.narrow(2, 0, self.length)

    def _check(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        heads, key_dim, value_dim = self._shared.shapes[self.slot]
        rows = self._one_key[0]
        for name, tensor, dim in (("keys", keys, key_dim), ("values", values, value_dim)):
            shape, want = tuple(tensor.shape), (rows, heads, keys.shape[2] if keys.dim() == 4 else 1, dim)
            if shape != want or tensor.dtype != self._shared.dtype or not tensor.is_cpu:
                raise ValueError(
                    f"{name} of layer {self.index} are {shape} {tensor.dtype} on {tensor.device}, the cache holds {want} "
                    f"{self._shared.dtype} on cpu; use another cache, or reset() this one for another batch"
                )
            if tensor.requires_grad and torch.is_grad_enabled():
                raise ValueError("memfit.KVCache keeps no gradients; run the model under torch.no_grad()")

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends tokens; all keys and values of the layer, as views."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        key_size, value_size = key_states.shape, value_states.shape
        if (
            key_size != self._one_key  # more than one token, or what does not belong here
            or value_size != self._one_value
            or key_states.dtype is not self.dtype
            or value_states.dtype is not self.dtype
            or key_states.requires_grad
            or value_states.requires_grad
        ):
            self._check(key_states, value_states)
        batch, tokens = self._rows, key_size[2]
        assert batch is not None
        start = batch.prepare(self.slot, tokens)
        if not self._append_keys(key_states.data_ptr(), key_states.stride(), self._item, start, tokens):
            key_states = key_states.contiguous()
            self._append_keys(key_states.data_ptr(), key_states.stride(), self._item, start, tokens)
        if not self._append_values(value_states.data_ptr(), value_states.stride(), self._item, start, tokens):
            value_states = value_states.contiguous()
            self._append_values(value_states.data_ptr(), value_states.stride(), self._item, start, tokens)
        end = self.length = start + tokens
        batch.lengths[self.slot] = end
        # as_strided of the whole: the view that narrow makes, in half the time
        rows, heads, _, dim = self._one_key
        self.keys = keys = self._all_keys.as_strided((rows, heads, end, dim), self._key_strides)
        self.values = values = self._all_values.as_strided((rows, heads, end, self._one_value[3]), self._value_strides)
        return keys, values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of what the next step attends to."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Tokens held."""
        return self.length

    def get_max_length(self) -> int:
        """No fixed maximum: the budget decides."""
        return -1

    def _detach(self) -> None:
        self._rows, self.keys, self.values, self.length = None, None, None, 0
        self._all_keys = self._all_values = None
        self.is_initialized = False


class KVCache(Cache):
    """A cache of at most ``budget`` bytes (``"64MiB"`` or an ``int``) for ``past_key_values``.

    Args:
        budget: bytes of blocks, all layers, rows and shared beginnings together; never exceeded.
        config: the model's; with it every layer is counted from the first token on.
        max_tokens: longest sequence; with ``config``, too small a budget is refused before the first token.

    Raises:
        BudgetError: names the smallest budget with which the step works (with ``max_tokens`` and ``config``: the whole run).
        SizeError: the budget is no size.
    """

    def __init__(self, budget: str | int, config: Any = None, max_tokens: int = 0) -> None:
        if max_tokens < 0:
            raise ValueError(
                f"max_tokens is {max_tokens}; give the longest sequence in tokens, or 0 for no limit but the budget"
            )
        self._start(_Shared(parse_bytes(budget), _layers_of(config) if config is not None else 0, max_tokens))

    def _start(self, shared: _Shared) -> None:
        Cache.__init__(self, layers=[])
        self._shared = shared
        self._batch: Rows | None = None

    def _take_rows(self, count: int) -> Rows:
        assert self._shared.store is not None
        if self._batch is None:
            self._batch = self._shared.store.rows(count)
        return self._batch

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends the keys and values of new tokens to a layer; all of them, as views without a copy.

        Raises:
            BudgetError: they do not fit; nothing was written.
        """
        while len(self.layers) <= layer_idx:
            self.layers.append(_Layer(self, len(self.layers)))
        return self.layers[layer_idx].update(key_states, value_states)

    @property
    def budget(self) -> int:
        """Bytes allowed."""
        return self._shared.budget

    @property
    def used_bytes(self) -> int:
        """Bytes of the blocks that rows hold, here and in the caches that share this one's store."""
        return self._shared.store.used if self._shared.store else 0

    @property
    def kept_bytes(self) -> int:
        """Bytes of blocks that nobody holds, kept because ``begin`` may find them; they go when room is needed."""
        return self._shared.store.kept if self._shared.store else 0

    @property
    def resident_bytes(self) -> int:
        """Bytes of memory pages that exist, measured."""
        return self._shared.store.resident if self._shared.store else 0

    @property
    def block_tokens(self) -> int:
        """Tokens of a block; 0 before the first keys."""
        return self._shared.store.block_tokens if self._shared.store else 0

    def begin(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> KVCache:
        """A new cache of the same store that holds the longest known beginning of a batch (not its last token)."""
        made = self._new()
        store = self._shared.store
        if store is None:
            return made
        tokens = _tokens(input_ids, attention_mask)
        found = [store.match(row[:-1]) for row in tokens]
        common = min((len(blocks) for blocks in found), default=0)
        if common:
            made._adopt(store.rows(len(found), [blocks[:common] for blocks in found]))
        return made

    def commit(self, tokens: torch.Tensor, attention_mask: torch.Tensor | None = None) -> int:
        """Makes full blocks of these rows known by their tokens (prompt and answer); how many can be found now."""
        if self._batch is None:
            return 0
        rows = _tokens(tokens, attention_mask)
        if len(rows) != self._batch.count:
            raise ValueError(f"{len(rows)} rows of tokens for a cache of {self._batch.count} rows")
        return sum(self._batch.publish(index, row) for index, row in enumerate(rows))

    def __deepcopy__(self, memo: dict[int, Any]) -> KVCache:
        made = self._new()
        memo[id(self)] = made
        if self._batch is not None:
            made._adopt(self._batch.fork())
        return made

    def _new(self) -> KVCache:
        made = KVCache.__new__(KVCache)
        made._start(self._shared)
        return made

    def _adopt(self, batch: Rows) -> None:
        self._batch = batch
        for index in range(max(self._shared.slots) + 1):
            layer = _Layer(self, index)
            self.layers.append(layer)
            if index in self._shared.slots:
                layer.slot = self._shared.slots[index]
                layer._attach(batch)

    def crop(self, tokens_to_remove: int) -> None:
        """Forgets the last ``-tokens_to_remove`` tokens (a negative number, as transformers has it)."""
        if tokens_to_remove > 0:
            raise ValueError(f"crop({tokens_to_remove}): give how many tokens to remove as a negative number")
        if self._batch is None or tokens_to_remove == 0:
            return
        self._batch.crop(max(0, max(self._batch.lengths) + tokens_to_remove))
        self._each(_Layer._sync)

    def select(self, indices: Any) -> None:
        """Row i becomes what row ``indices[i]`` was."""
        if self._batch is not None:
            self._batch.select([int(index) for index in torch.as_tensor(indices).tolist()])
            batch = self._batch
            self._each(lambda layer: layer._attach(batch))

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Rows after a step of beam search."""
        self.select(beam_idx)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Only these rows."""
        if indices.dtype == torch.bool:
            indices = indices.nonzero().flatten()
        self.select(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Every row so many times, side by side."""
        if self._batch is not None:
            self.select([index for index in range(self._batch.count) for _ in range(repeats)])

    def reset(self) -> None:
        """Forgets the rows; what was committed stays known."""
        self._each(_Layer._detach)
        self.layers.clear()
        if self._batch is not None:
            self._batch.close()
            self._batch = None

    def close(self) -> None:
        """Forgets the rows and gives every block back that nobody else holds."""
        self.reset()
        if self._shared.store is not None:
            self._shared.store.drop_unused()

    def _each(self, do: Any) -> None:
        for layer in self.layers:
            if layer.is_initialized:
                do(layer)


def _tokens(input_ids: torch.Tensor, mask: torch.Tensor | None) -> list[np.ndarray[Any, np.dtype[np.int32]]]:
    """Rows of tokens, hidden ones as -1 (their place in the mask changes every key behind them)."""
    tokens = input_ids.detach().to("cpu", torch.int32).clone()
    if tokens.dim() == 1:
        tokens = tokens[None]
    if mask is not None:
        width = min(mask.shape[-1], tokens.shape[-1])
        tokens[:, :width][mask.to("cpu")[:, :width] == 0] = -1
    return list(tokens.numpy())


def _layers_of(config: Any) -> int:
    """Layers of a model that keep keys and values."""
    text = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    kinds = set(getattr(text, "layer_types", None) or ())
    if kinds & _OTHER_LAYERS:
        raise ValueError(
            f"memfit.KVCache holds attention layers only; this model has {', '.join(sorted(kinds & _OTHER_LAYERS))}"
        )
    sharing = getattr(text, "kv_sharing_modes", None) or ()
    return int(text.num_hidden_layers) - sum(mode == "reuse" for mode in sharing)
