"""Instance segmentation: objects with a box, a class, a score and a mask."""
