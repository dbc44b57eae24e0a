"""The process beside an agency's database: it attests, captures, seals, opens and applies."""
