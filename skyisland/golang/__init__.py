"""All that knows Go.

Gives: a call parsed and checked (`call`, by its `tokens` and `names`; `callee` where its arguments are
data), the packages that it names (`imports`), a package read from its files (`packages`; `parameters` of a
function) with its modules (`modules`), the main program around a call (`harness`; `handler`, for what
answers HTTP), its form where the text does not say it (`forms`, `links`), what is said to its process
(`conversation`) and what it left (`outcome`), the compiler (`compiler`) in its jail (`gojail`), what is
laid beside a repository (`generated`), what every build needs (`library`), its caches (`caches`, and
`gocache`, a program that serves them to it), its complaints in words for people (`complaints`, with
`reasons` and `folders` from the files), what a package offers (`catalogue`, told by a program in the jail),
and what a function finds in its jail (`runtime`).

Uses: jails, settings, host, model. What is built, when, and what is kept of it is for `builds`.
"""
