"""Functions with a name: what each name stands for, its revisions, and its secrets.

Gives: what a name stands for, as admins define it and as it is kept (`definition`); the room that keeps it,
a protocol with a driver in memory, which is for tests (`names`), and one in SQLite (`sqlite`); secrets in
private files (`secrets`); signatures of webhooks (`webhooks`), what Examples say (`verified`); what is done
with names (`functions`) and their calls (`calls`), by whoever runs calls (`runner`); when a name is called by
itself (`schedule`), and that each time counts once (`firing`); when somebody looks whether its branch moved
(`following`), and pushes because of which they do (`pushes`).

Uses: settings, host, golang, events, model, errors. It makes no jail and compiles nothing: the island does.
"""
