"""Statistics on plain numbers: intervals and paired comparisons; knows nothing of models or metrics."""
