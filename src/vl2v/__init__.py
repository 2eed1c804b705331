"""vl2v: distil a pay-per-query vision-language model into your own image classifier."""
