"""datatrove's own steps in one process: ftfy, PII, MinHash in its four stages.

    python run_datatrove.py ROWS.jsonl FOLDER        prints {"seconds": CPU seconds, "kept": rows}

The language filter is left out: it downloads a model. Language `cmn` for all rows: `zh` and `zho` fall back to words
between spaces in silence, and jieba parts English at spaces too.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.formatters import FTFYFormatter, PIIFormatter
from loguru import logger


def main(path: str, folder: Path) -> None:
    """Reads, repairs, redacts, drops near duplicates, writes."""
    logger.remove()
    config, work = MinhashConfig(), folder / "minhash"
    signature = MinhashDedupSignature(f"{work}/signatures", config, language="cmn")
    signature.get_shingles("预热 warm up: jieba reads its dictionary once")
    start = time.process_time()
    with open(path, encoding="utf-8") as file:
        documents = [Document("\n".join(json.loads(line).values()), str(row)) for row, line in enumerate(file)]
    for formatter in (FTFYFormatter(), PIIFormatter()):
        documents = list(formatter.run(iter(documents)))
    signature.run(iter(documents))
    for bucket in range(config.num_buckets):
        buckets = MinhashDedupBuckets(f"{work}/signatures", f"{work}/buckets", config=config)
        buckets.run(rank=bucket, world_size=config.num_buckets)
    MinhashDedupCluster(f"{work}/buckets", f"{work}/remove", config=config).run()
    kept = list(MinhashDedupFilter(f"{work}/remove").run(iter(documents)))
    with (folder / "train.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": one.text}, ensure_ascii=False) + "\n" for one in kept)
    print(json.dumps({"seconds": time.process_time() - start, "kept": len(kept)}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
