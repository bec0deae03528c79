"""Random and fixed changes of training images, carrying boxes and masks along."""
