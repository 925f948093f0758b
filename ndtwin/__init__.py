"""The composition root: command line, configuration, API and page, lab, embedded broker, benches."""
