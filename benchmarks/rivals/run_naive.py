"""The pipeline that people write first: pandas, langdetect, drop_duplicates, whitespace words, a random split.

python run_naive.py ROWS.jsonl FOLDER        prints {"seconds": CPU seconds, "kept": rows}
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pandas
from langdetect import DetectorFactory, LangDetectException, detect


def language(text: str) -> str:
    """langdetect's guess; it raises where a text has no letters."""
    try:
        return detect(text)
    except LangDetectException:
        return "?"


def main(path: str, folder: Path) -> None:
    """Reads, filters by language and length, drops duplicates, splits 8:1:1, writes."""
    DetectorFactory.seed = 0
    detect("warm up: the language profiles are read once")
    start = time.process_time()
    frame = pandas.read_json(path, lines=True)
    frame["text"] = frame["instruction"] + "\n" + frame["input"] + "\n" + frame["output"]
    frame = frame[frame["text"].apply(language).isin(["zh-cn", "zh-tw", "en"])]
    frame = frame[frame["text"].apply(lambda text: len(text.split()) >= 3)]
    frame = frame.drop_duplicates(["instruction", "input", "output"])
    frame = frame.sample(frac=1, random_state=0).drop(columns="text")
    cuts = [0, int(0.8 * len(frame)), int(0.9 * len(frame)), len(frame)]
    for name, first, last in zip(("train", "val", "test"), cuts, cuts[1:], strict=False):
        frame.iloc[first:last].to_json(folder / f"{name}.jsonl", orient="records", lines=True, force_ascii=False)
    print(json.dumps({"seconds": time.process_time() - start, "kept": len(frame)}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
