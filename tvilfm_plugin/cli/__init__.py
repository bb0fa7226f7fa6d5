"""`tvilfm`, the command. Its modules define options and import what does the work only when it is asked for."""
