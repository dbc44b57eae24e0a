"""Who is trusted: keys, evidence, appraisal, results, members. Pure."""
