"""TRL's way from chats to a trainer that could begin: its preparation of the data set.

python prepare_trl.py CHATS.jsonl MODEL PROCESSES    prints {"seconds": without loading libraries and model, "rows": …}
"""

from __future__ import annotations

import json
import sys
import tempfile
import time

from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer


def main(path: str, model: str, processes: int) -> None:
    """Reads, tokenises, masks; `processes` is `dataset_num_proc`, whose default is one."""
    loaded, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        data = load_dataset("json", data_files=path, split="train", cache_dir=folder)
        several = processes if processes > 1 else None
        trainer = SFTTrainer(
            model=loaded,
            args=SFTConfig(output_dir=folder, use_cpu=True, report_to="none", dataset_num_proc=several),
            train_dataset=data.select_columns(["prompt", "completion"]),
            processing_class=tokenizer,
        )
        print(json.dumps({"seconds": time.perf_counter() - started, "rows": len(trainer.train_dataset)}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
