"""How data that is not in memory is read: folders of images, by index, in parts of loaders."""
