SELECT venue_id, expected, low, high, check_out_share AS share, model_version FROM estimate_rows FINAL
