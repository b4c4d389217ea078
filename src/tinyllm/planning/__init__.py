"""From a folder of texts and a time to the settings of a run, each with its reason, and the stages that follow them."""
