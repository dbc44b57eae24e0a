"""The host's TPM 2.0 through tpm2-pytss: I/O and nothing else."""
