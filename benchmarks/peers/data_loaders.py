"""Other libraries' ways to the same batches: float32, normalised, channels first, shuffled, from the same images.

Each maker takes the folder with the prepared copies and the number of rows, and returns a function that gives an epoch of
batches, or raises ImportError where the library is absent.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 64
MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1) * 255
STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1) * 255
Epoch = Callable[[], Iterator[Any]]


class Mapped:
    """A map-style data set over a memory-mapped array, as most training scripts write it."""

    def __init__(self, path: str) -> None:
        self.values = np.load(path, mmap_mode="r")

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, i: int) -> Any:
        import torch

        return torch.from_numpy((self.values[i].astype(np.float32) - MEAN) / STD)


class MappedBatch(Mapped):
    """The same, a batch at a time."""

    def __getitem__(self, rows: Any) -> Any:
        import torch

        batch = torch.from_numpy(self.values[np.sort(rows)]).float()
        return batch.sub_(torch.from_numpy(MEAN)).div_(torch.from_numpy(STD))


def torch_rows(folder: Path, workers: int) -> Epoch:
    import torch

    data = Mapped(str(folder / "images.npy"))
    return lambda: iter(torch.utils.data.DataLoader(data, BATCH, shuffle=True, num_workers=workers))


def torch_batches(folder: Path, workers: int = 0) -> Epoch:
    import torch

    data = MappedBatch(str(folder / "images.npy"))

    def epoch() -> Iterator[Any]:
        order = torch.utils.data.BatchSampler(torch.utils.data.RandomSampler(data), BATCH, False)
        return iter(torch.utils.data.DataLoader(data, None, sampler=order, num_workers=workers))

    return epoch


def numpy_reused(folder: Path) -> Epoch:
    values = np.load(folder / "images.npy", mmap_mode="r")
    gathered = np.empty((BATCH, *values.shape[1:]), np.uint8)
    made = np.empty(gathered.shape, np.float32)

    def epoch() -> Iterator[Any]:
        order = np.random.permutation(len(values))
        for start in range(0, len(values), BATCH):
            rows = order[start : start + BATCH]
            n = len(rows)
            np.take(values, rows, axis=0, out=gathered[:n])
            np.subtract(gathered[:n], MEAN, out=made[:n])
            made[:n] /= STD
            yield made[:n]

    return epoch


def webdataset_(folder: Path) -> Epoch:
    import torch
    import webdataset as wds

    path = folder / "shard.tar"
    if not path.exists():
        with wds.TarWriter(str(path)) as sink:
            for i, image in enumerate(np.load(folder / "images.npy", mmap_mode="r")):
                sink.write({"__key__": f"{i:06d}", "bin": image.tobytes()})

    def decode(sample: Any) -> Any:
        image = np.frombuffer(sample["bin"], np.uint8).reshape(3, 224, 224)
        return torch.from_numpy((image.astype(np.float32) - MEAN) / STD)

    def epoch() -> Iterator[Any]:
        return iter(
            wds.WebDataset(str(path), shardshuffle=False)
            .shuffle(1000)
            .map(decode)
            .batched(BATCH, collation_fn=torch.stack)
        )

    return epoch


def huggingface(folder: Path) -> Epoch:
    import datasets
    import torch

    place = folder / "hf"
    if not place.exists():
        values = np.load(folder / "images.npy", mmap_mode="r")
        features = datasets.Features({"image": datasets.Array3D((3, 224, 224), "uint8")})

        def rows() -> Iterator[Any]:
            for image in values:
                yield {"image": image}

        datasets.Dataset.from_generator(rows, features=features, cache_dir=str(folder / "hfc")).save_to_disk(str(place))
    data = datasets.load_from_disk(str(place)).with_format("numpy")

    def epoch() -> Iterator[Any]:
        order = np.random.permutation(len(data))
        for start in range(0, len(data), BATCH):
            images = data[order[start : start + BATCH].tolist()]["image"]
            yield torch.from_numpy((images.astype(np.float32) - MEAN) / STD)

    return epoch


def zarr_(folder: Path) -> Epoch:
    import zarr

    place = folder / "z.zarr"
    if not place.exists():
        source = np.load(folder / "images.npy", mmap_mode="r")
        made = zarr.create_array(
            str(place), shape=source.shape, chunks=(1, *source.shape[1:]), dtype="u1", compressors=None
        )
        for start in range(0, len(source), 200):
            made[start : start + 200] = source[start : start + 200]
    values = zarr.open_array(str(place), mode="r")

    def epoch() -> Iterator[Any]:
        order = np.random.permutation(values.shape[0])
        for start in range(0, len(order), BATCH):
            yield (values.oindex[np.sort(order[start : start + BATCH])].astype(np.float32) - MEAN) / STD

    return epoch


def grain_(folder: Path) -> Epoch:
    import grain.python as grain

    class Source(Mapped):
        def __getitem__(self, i: Any) -> Any:
            return (self.values[i].astype(np.float32) - MEAN) / STD

    source = Source(str(folder / "images.npy"))

    def epoch() -> Iterator[Any]:
        data = grain.MapDataset.source(source).shuffle(random.randrange(1 << 30)).batch(BATCH)
        return iter(data.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)))

    return epoch


def litdata_(folder: Path) -> Epoch:
    import litdata
    import torch

    place = folder / "lit"
    if not place.exists():
        from litdata.streaming.cache import Cache

        cache = Cache(str(place), chunk_bytes="64MB")
        for i, image in enumerate(np.load(folder / "images.npy", mmap_mode="r")):
            cache[i] = {"image": torch.from_numpy(np.array(image))}
        cache.done()
        cache.merge()
    mean, std = torch.from_numpy(MEAN), torch.from_numpy(STD)

    class Rows(litdata.StreamingDataset):  # type: ignore[misc]
        def __getitem__(self, i: Any) -> Any:
            return (super().__getitem__(i)["image"].float() - mean) / std

    return lambda: iter(litdata.StreamingDataLoader(Rows(str(place), shuffle=True), batch_size=BATCH, num_workers=0))


def mosaic(folder: Path) -> Epoch:
    from streaming import MDSWriter, StreamingDataLoader, StreamingDataset

    place = folder / "mds"
    if not place.exists():
        with MDSWriter(out=str(place), columns={"image": "ndarray:uint8:3,224,224"}) as writer:
            for image in np.load(folder / "images.npy", mmap_mode="r"):
                writer.write({"image": np.array(image)})

    class Rows(StreamingDataset):  # type: ignore[misc]
        def __getitem__(self, i: Any) -> Any:
            return (super().__getitem__(i)["image"].astype(np.float32) - MEAN) / STD

    data = Rows(local=str(place), shuffle=True, batch_size=BATCH)
    return lambda: iter(StreamingDataLoader(data, batch_size=BATCH, num_workers=0))


def stateful(folder: Path) -> Epoch:
    from torchdata.stateful_dataloader import StatefulDataLoader

    data = Mapped(str(folder / "images.npy"))
    return lambda: iter(StatefulDataLoader(data, BATCH, shuffle=True, num_workers=0))


def ffcv_(folder: Path) -> Epoch:
    """Its own layout: channels last in memory, seen as channels first."""
    from ffcv.fields import RGBImageField
    from ffcv.fields.rgb_image import SimpleRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import NormalizeImage, ToTensor, ToTorchImage
    from ffcv.writer import DatasetWriter

    place = folder / "images.beton"
    if not place.exists():

        class Images(Mapped):
            def __getitem__(self, i: int) -> Any:
                return (np.ascontiguousarray(self.values[i].transpose(1, 2, 0)),)

        writer = DatasetWriter(str(place), {"image": RGBImageField(write_mode="raw")}, num_workers=1)
        writer.from_indexed_dataset(Images(str(folder / "images.npy")))
    steps = [
        SimpleRGBImageDecoder(), NormalizeImage(MEAN.reshape(3), STD.reshape(3), np.dtype("f4")), ToTensor(), ToTorchImage(),
    ]  # fmt: skip
    loader = Loader(
        str(place),
        batch_size=BATCH,
        num_workers=2,
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=False,
        pipelines={"image": steps},
    )
    return lambda: (batch for (batch,) in loader)


def dali(folder: Path) -> Epoch:
    from nvidia.dali import fn, pipeline_def, types

    values = np.load(folder / "images.npy", mmap_mode="r")
    rows: list[Any] = []

    def gather() -> Any:
        if not rows:
            raise StopIteration
        return values[np.sort(rows.pop())]

    @pipeline_def(batch_size=BATCH, num_threads=2, device_id=None, prefetch_queue_depth=2)
    def pipeline() -> Any:
        images = fn.external_source(source=gather, batch=True, layout="CHW")
        return fn.crop_mirror_normalize(
            images, dtype=types.FLOAT, output_layout="CHW", mean=MEAN.reshape(3).tolist(), std=STD.reshape(3).tolist()
        )

    made = pipeline()
    made.build()

    def epoch() -> Iterator[Any]:
        order = np.random.permutation(len(values))
        rows[:] = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
        while True:
            try:
                (batch,) = made.run()
            except StopIteration:
                made.reset()
                return
            yield np.array(batch.as_tensor(), copy=False)

    return epoch


def tf_data(folder: Path) -> Epoch:
    import tensorflow as tf

    mean, std = tf.constant(MEAN), tf.constant(STD)

    def decode(records: Any) -> Any:
        images = tf.reshape(tf.io.decode_raw(records, tf.uint8), (-1, 3, 224, 224))
        return (tf.cast(images, tf.float32) - mean) / std

    header = np.lib.format.open_memmap(folder / "images.npy", mode="r").offset
    data = tf.data.FixedLengthRecordDataset(str(folder / "images.npy"), 3 * 224 * 224, header_bytes=header)
    data = data.shuffle(1000).batch(BATCH).map(decode, num_parallel_calls=2).prefetch(2)
    return lambda: (batch.numpy() for batch in data)


def spdl_(folder: Path) -> Epoch:
    import torch
    from spdl.pipeline import PipelineBuilder

    values = np.load(folder / "images.npy", mmap_mode="r")
    mean, std = torch.from_numpy(MEAN), torch.from_numpy(STD)

    def make(rows: Any) -> Any:
        return torch.from_numpy(values[np.sort(rows)]).float().sub_(mean).div_(std)

    def epoch() -> Iterator[Any]:
        order = np.random.permutation(len(values))
        batches = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
        pipeline = PipelineBuilder().add_source(batches).pipe(make, concurrency=2).add_sink(3).build(num_threads=2)
        with pipeline.auto_stop():
            yield from pipeline

    return epoch


PEERS: dict[str, Callable[[Path], Epoch]] = {
    "torch DataLoader, a row at a time": lambda folder: torch_rows(folder, 0),
    "torch DataLoader, a row at a time, 2 workers": lambda folder: torch_rows(folder, 2),
    "torch DataLoader, a batch at a time": torch_batches,
    "NumPy, buffers used again": numpy_reused,
    "webdataset (buffer 1,000)": webdataset_,
    "Hugging Face datasets": huggingface,
    "LitData": litdata_,
    "Mosaic streaming": mosaic,
    "zarr": zarr_,
    "Grain (2 threads)": grain_,
    "StatefulDataLoader, a row at a time": stateful,
    "SPDL (2 threads)": spdl_,
    "tf.data (buffer 1,000, 2 threads)": tf_data,
    "DALI (CPU, 2 threads)": dali,
    "FFCV (2 threads, its own layout)": ffcv_,
}
