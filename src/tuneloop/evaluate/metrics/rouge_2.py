"""rouge_2: pairs of neighbouring words (Chinese: characters) that answer and reference share."""

from __future__ import annotations

from tuneloop.evaluate.metrics._rouge import RougeN


class Rouge2(RougeN):
    """ROUGE-2 F-measure with equal weights (Lin 2004, "ROUGE: A Package for Automatic Evaluation").

    Tokens are those of `rouge_1`. A reference of one word has no pair and is unscored, where rouge-score gives 0.
    """

    ORDER = 2
