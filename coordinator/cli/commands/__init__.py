"""The commands of `llmi`, one module for each group: arguments in, what does the work called, result out."""
