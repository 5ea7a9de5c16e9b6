// An existing IoT hub, and the daemon as a container of App Service.
using './main.bicep'

param name = 'twinsync'
param iotHubMode = 'existing'
param iotHubName = 'contoso'
param iotHubResourceGroup = 'contoso-iot'
param iotHubSku = 'S2'
param iotHubUnits = 2
param cosmosThroughputMode = 'autoscale'
param cosmosThroughput = 4000
param hosting = 'appService'
param registryName = 'contosoimages'
param image = 'contosoimages.azurecr.io/twinsync:0.1.0'
param appServiceReplicas = 2
// For example, the addresses of your Prometheus.
param appServiceAllowedAddresses = [
  '203.0.113.0/24'
]
