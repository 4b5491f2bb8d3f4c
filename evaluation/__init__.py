"""Looking at what a model wrote: HTML pages of documents with their images and scores, and benchmarks."""
