"""Results written on pictures; reading pictures from disk does not belong here.

Everything is drawn with Pillow. Sizes follow the picture's, so that a thumbnail and an 8,000 pixel scan look alike when
both fill the same window.
"""

from hubel.drawing.boxes import BoxLabel, draw_boxes
from hubel.drawing.canvas import LARGEST_ENLARGED_SIDE, MINIMUM_SIDE, save_image
from hubel.drawing.labels import draw_class_scores

__all__ = ["LARGEST_ENLARGED_SIDE", "MINIMUM_SIDE", "BoxLabel", "draw_boxes", "draw_class_scores", "save_image"]
