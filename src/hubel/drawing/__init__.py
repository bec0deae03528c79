"""Results drawn on images, with Pillow.

Sizes of text and lines follow that of the image, so that a thumbnail and a scan of 8,000 pixels look alike when they
fill the same window.
"""

from hubel.drawing.boxes import BoxLabel, draw_boxes, draw_class_map
from hubel.drawing.canvas import save_image
from hubel.drawing.instances import draw_instances
from hubel.drawing.labels import draw_class_scores

__all__ = ["BoxLabel", "draw_boxes", "draw_class_map", "draw_class_scores", "draw_instances", "save_image"]
