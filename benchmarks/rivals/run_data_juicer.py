"""data-juicer's own operators, one after the other, without its executor (which would only add to its time).

    python run_data_juicer.py ROWS.jsonl FOLDER        prints {"seconds": CPU seconds, "kept": rows}

The language filter is left out: it downloads a model. `tokenization` is not the default `space`, which takes half of
all Chinese rows for duplicates.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_DISABLE_PROGRESS_BARS="1")

from data_juicer.ops.deduplicator import DocumentDeduplicator, DocumentMinhashDeduplicator
from data_juicer.ops.filter import TextLengthFilter
from data_juicer.ops.mapper import FixUnicodeMapper, PiiRedactionMapper, WhitespaceNormalizationMapper
from data_juicer.utils.constant import Fields
from datasets import Dataset
from loguru import logger


def main(path: str, folder: Path) -> None:
    """Reads, repairs, redacts, filters by length, drops exact and near duplicates, splits 8:1:1, writes."""
    logger.remove()
    mappers = [FixUnicodeMapper(), WhitespaceNormalizationMapper(), PiiRedactionMapper()]
    length, exact, near = TextLengthFilter(min_len=10), DocumentDeduplicator(), DocumentMinhashDeduplicator(
        tokenization="character"
    )  # fmt: skip
    start = time.process_time()
    with open(path, encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    data: Any = Dataset.from_list([{"text": "\n".join(record.values())} for record in records])
    for mapper in mappers:
        data = data.map(mapper.process_batched, batched=True)
    data = data.filter(lambda batch: _keeps(length, batch), batched=True)
    data = exact.process(data.map(exact.compute_hash))[0]
    data = near.process(data.map(near.compute_hash))[0]
    kept = len(data)
    rest = data.select_columns("text").train_test_split(0.2, seed=0)
    half = rest["test"].train_test_split(0.5, seed=0)
    for name, part in (("train", rest["train"]), ("val", half["train"]), ("test", half["test"])):
        part.to_json(folder / f"{name}.jsonl", force_ascii=False)
    print(json.dumps({"seconds": time.process_time() - start, "kept": kept}))


def _keeps(operator: TextLengthFilter, batch: dict[str, list[Any]]) -> list[bool]:
    return list(
        operator.process_batched(operator.compute_stats_batched({**batch, Fields.stats: [{} for _ in batch["text"]]}))
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
