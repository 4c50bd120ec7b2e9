"""How TrainModel trains: in its own process, in processes side by side, or with workers on other machines."""
