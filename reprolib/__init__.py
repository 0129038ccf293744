"""reprolib: BUC and DBC reproduced."""
