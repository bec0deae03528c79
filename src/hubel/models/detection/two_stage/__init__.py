"""Parts of detectors that propose regions and then look at each of them: one idea a module."""
