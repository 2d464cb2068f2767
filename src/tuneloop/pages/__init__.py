"""What all pages share: the frame and its colours, drawings, numbers in words, Markdown. Knows no stage."""
