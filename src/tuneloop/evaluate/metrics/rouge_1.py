"""rouge_1: words (Chinese: characters) that answer and reference share."""

from __future__ import annotations

from tuneloop.evaluate.metrics._rouge import RougeN


class Rouge1(RougeN):
    """ROUGE-1 F-measure with equal weights (Lin 2004, "ROUGE: A Package for Automatic Evaluation").

    English is tokenised as by the rouge-score package without stemming; that package itself scores Chinese as 0.
    """

    ORDER = 1
