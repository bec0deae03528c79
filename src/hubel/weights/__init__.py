"""Published weights: the catalog, the cache and its downloads, converters of other libraries' files, class names. Nothing here executes what a file contains."""
