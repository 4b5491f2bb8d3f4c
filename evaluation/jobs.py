"""Names every module of this package that registers jobs; workers load it."""
