// A new IoT hub, and the daemon on an AKS cluster with workload identity.
using './main.bicep'

param name = 'twinsync'
param iotHubMode = 'new'
param hosting = 'aks'
// az aks show --resource-group GROUP --name CLUSTER --query oidcIssuerProfile.issuerUrl --output tsv
param aksOidcIssuer = 'https://westeurope.oic.prod-aks.azure.com/00000000-0000-0000-0000-000000000000/00000000-0000-0000-0000-000000000000/'
param aksNamespace = 'twinsync'
param aksServiceAccount = 'twinsync'
